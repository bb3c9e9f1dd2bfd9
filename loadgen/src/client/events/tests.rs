use proptest::prelude::*;

use super::*;

type Told = Vec<(Vec<u8>, bool)>;

/// Feeds the stream in the pieces that these cuts make of it.
fn fed(stream: &[u8], cuts: &[usize]) -> Told {
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (stream.len() + 1)).collect();
    cuts.extend([0, stream.len()]);
    cuts.sort_unstable();
    let mut told = Told::new();
    let mut events = EventStream::default();
    for cut in cuts.windows(2) {
        let fed = events.feed(&stream[cut[0]..cut[1]], |event| {
            told.push((event.data.to_vec(), event.is_error));
        });
        assert_eq!(fed, Ok(()));
    }
    told
}

fn told(stream: &str) -> Vec<String> {
    let text = |(data, _): (Vec<u8>, bool)| String::from_utf8(data).unwrap();
    fed(stream.as_bytes(), &[]).into_iter().map(text).collect()
}

/// The standard's own steps, one after the other, over the whole stream at once.
fn oracle(stream: &[u8]) -> Told {
    let text = String::from_utf8(stream.to_vec()).unwrap();
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let (mut told, mut data, mut kind) = (Told::new(), String::new(), String::new());
    // What follows the last line end is no line.
    let mut lines: Vec<_> = text.split('\n').collect();
    lines.pop();
    for line in lines {
        if line.is_empty() {
            if let Some(whole) = data.strip_suffix('\n') {
                told.push((whole.as_bytes().to_vec(), kind == "error"));
            }
            (data, kind) = (String::new(), String::new());
            continue;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => data += &format!("{value}\n"),
            "event" => kind = value.to_owned(),
            _ => {}
        }
    }
    told
}

#[test]
fn lines_end_as_they_like() {
    assert_eq!(told("data: a\n\ndata: b\n\n"), ["a", "b"]);
    assert_eq!(told("data: a\r\n\r\ndata: b\r\n\r\n"), ["a", "b"]);
    assert_eq!(told("data: a\r\rdata: b\r\r"), ["a", "b"]);
}

#[test]
fn the_space_after_the_colon_is_one_and_optional() {
    assert_eq!(told("data:a\n\ndata:  b\n\ndata\n\n"), ["a", " b", ""]);
}

#[test]
fn data_lines_are_joined_and_the_rest_is_passed_over() {
    let stream = ": ping\n\nid: 7\nretry: 10\ndata: one\ndata: two\nfoo: bar\n\n:\n\n";
    assert_eq!(told(stream), ["one\ntwo"]);
}

#[test]
fn a_byte_order_mark_may_lead() {
    assert_eq!(told("\u{feff}data: a\n\ndata: b\n\n"), ["a", "b"]);
    assert_eq!(told("data: a\n\n\u{feff}data: b\n\n"), ["a"]);
}

#[test]
fn an_event_without_its_empty_line_never_was() {
    assert_eq!(told("data: a\n\ndata: [DONE]\n"), ["a"]);
    assert_eq!(told("data: a\n\ndata: [DONE]"), ["a"]);
}

#[test]
fn an_error_is_an_error_for_one_event() {
    let stream = b"event: error\ndata: a\n\ndata: b\n\nevent: error\n\ndata: c\n\n";
    let is_error: Vec<_> = fed(stream, &[])
        .iter()
        .map(|(_, is_error)| *is_error)
        .collect();
    assert_eq!(is_error, [true, false, false]);
}

#[test]
fn an_event_that_has_no_end_is_given_up() {
    let mut events = EventStream::default();
    let piece = vec![b'x'; EVENT_BYTES_MAX / 8];
    let fed: Vec<_> = (0..9).map(|_| events.feed(&piece, |_| {})).collect();
    assert_eq!(fed[..8], [Ok(()); 8]);
    assert_eq!(fed[8], Err(TooLong));
}

fn stream() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        4 => "data: ?[a-z{}:\" é]{0,12}",
        1 => "event: ?(error|other)",
        1 => ":[a-z ]{0,5}",
        1 => "[a-z]{0,4}",
        4 => Just(String::new()),
    ];
    let end = prop_oneof![Just("\n"), Just("\r"), Just("\r\n")];
    let lines = prop::collection::vec((line, end), 0..30);
    (any::<bool>(), lines, "[a-z]{0,5}").prop_map(|(has_mark, lines, rest)| {
        let lines = lines.into_iter().map(|(line, end)| line + end);
        let mark = if has_mark { "\u{feff}" } else { "" };
        format!("{mark}{}{rest}", lines.collect::<String>())
    })
}

proptest! {
    #[test]
    fn wherever_it_is_cut_it_tells_what_the_standard_says(
        stream in stream(),
        cuts in prop::collection::vec(any::<usize>(), 0..20),
    ) {
        prop_assert_eq!(fed(stream.as_bytes(), &cuts), oracle(stream.as_bytes()));
    }

    #[test]
    fn byte_by_byte_it_tells_the_same(stream in stream()) {
        let cuts: Vec<_> = (0..stream.len()).collect();
        prop_assert_eq!(fed(stream.as_bytes(), &cuts), oracle(stream.as_bytes()));
    }
}
