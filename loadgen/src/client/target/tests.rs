use super::*;

fn target(url: &str) -> Target {
    Target::resolve(&Settings::new(url)).expect("it is in order")
}

fn problem(change: impl FnOnce(&mut Settings)) -> String {
    let mut settings = Settings::new("http://127.0.0.1:8000");
    change(&mut settings);
    let problem = Target::resolve(&settings).expect_err("something is wrong");
    problem.to_string()
}

#[test]
fn it_says_where_requests_go() {
    let shown = |url: &str| target(url).to_string();
    insta::assert_snapshot!(
        shown("http://127.0.0.1:8000"),
        @"127.0.0.1:8000/v1/completions over HTTP/1.1 at 127.0.0.1:8000"
    );
    insta::assert_snapshot!(
        shown("http://127.0.0.1/llm/"),
        @"127.0.0.1/llm/v1/completions over HTTP/1.1 at 127.0.0.1:80"
    );
    insta::assert_snapshot!(
        shown("http://[::1]:8000"),
        @"[::1]:8000/v1/completions over HTTP/1.1 at [::1]:8000"
    );
}

#[test]
fn the_version_of_the_interface_is_said_once() {
    assert_eq!(
        target("http://127.0.0.1:1/v1").uri().path(),
        "/v1/completions"
    );
    assert_eq!(
        target("http://127.0.0.1:1/v1/").uri().path(),
        "/v1/completions"
    );
    assert_eq!(
        target("http://127.0.0.1:1/x").uri().path(),
        "/x/v1/completions"
    );
}

#[test]
fn a_base_url_that_is_none_says_what_to_write() {
    let wrong = |url: &str| problem(|settings| settings.base_url = url.to_owned());
    insta::assert_snapshot!(
        wrong("localhost:8000"),
        @r#"the base URL "localhost:8000" does not begin with http:// or https://; write it like http://127.0.0.1:8000"#
    );
    for url in [
        "",
        "ftp://host",
        "http://",
        "http://a b",
        "http://u:p@host",
        "http://host?x=1",
        "http://host:99999",
        "http://host:",
    ] {
        let message = wrong(url);
        assert!(
            message.ends_with("write it like http://127.0.0.1:8000"),
            "{message}"
        );
    }
}

#[test]
fn what_cannot_be_sent_is_refused_before_the_run() {
    insta::assert_snapshot!(
        problem(|settings| settings.path = "v1/completions".into()),
        @r#"the path "v1/completions" is not a path of a URL; write it like /v1/completions"#
    );
    insta::assert_snapshot!(
        problem(|settings| settings.headers = vec![("a b".into(), "c".into())]),
        @r#"the header "a b" cannot be sent: invalid HTTP header name"#
    );
    insta::assert_snapshot!(
        problem(|settings| settings.headers = vec![("Content-Length".into(), "3".into())]),
        @r#"the header "Content-Length" cannot be sent: the client sets it itself"#
    );
    insta::assert_snapshot!(
        problem(|settings| settings.connections_max = Some(0)),
        @"at least one connection is needed: raise the limit of connections above 0"
    );
}

#[test]
fn a_secret_is_in_no_message() {
    let message = problem(|settings| settings.headers = vec![("x-key".into(), "se\ncret".into())]);
    assert!(!message.contains("cret"), "{message}");
}

#[test]
fn a_name_that_leads_nowhere_is_told() {
    // RFC 6761 reserves .invalid for names that do not exist.
    let message = problem(|settings| settings.base_url = "http://host.invalid".into());
    assert!(
        message.starts_with("the name \"host.invalid\" leads to no address: "),
        "{message}"
    );
}
