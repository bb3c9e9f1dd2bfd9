//! Asks the targets on a thread of its own, so that one that is slow holds up neither the load nor the others.

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{io, panic};

use foresail_core::time::Nanos;
use hyper::Uri;
use tokio::sync::watch;
use tokio::task::LocalSet;

use super::exposition;
use super::sample::ServerSample;
use super::scraped::{Point, Scrape, ScrapeFailure, Scraped, TargetScrapes};
use super::selector::Selector;
use crate::client::{self, FetchError, Target, TargetError, fetch};
use crate::clock::RunClock;

/// What is asked for: the text format, as nothing more is needed of the newer ones.
const ACCEPT: &str = "text/plain;version=0.0.4";

/// A page with more is none of a server: vLLM's has some 100 KB.
const PAGE_BYTES_MAX: usize = 16 << 20;

/// Where it is if the address names no path.
const PATH: &str = "/metrics";

/// What to scrape, and how often.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The targets; see [`ScrapeTarget::resolve`].
    pub targets: Vec<ScrapeTarget>,
    /// From one scrape of a target to the next. A target that takes longer is asked less often.
    pub every: Duration,
    /// For how long a target may take.
    pub timeout: Duration,
    /// The metric that tells how many replicas there are, if one does.
    pub replicas: Option<Selector>,
}

impl Settings {
    /// Every second, and a second for each.
    #[must_use]
    pub fn new(targets: Vec<ScrapeTarget>) -> Self {
        Self {
            targets,
            every: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            replicas: None,
        }
    }
}

/// Something that has metrics.
#[derive(Clone, Debug)]
pub struct ScrapeTarget {
    name: String,
    target: Target,
}

impl ScrapeTarget {
    /// The target of an address such as `http://127.0.0.1:8000`, which means its `/metrics`. Headers and
    /// `ca_file` are those of [`client::Settings`].
    ///
    /// # Errors
    /// [`TargetError`] says what to change.
    pub fn resolve(
        url: &str,
        headers: &[(String, String)],
        ca_file: Option<PathBuf>,
    ) -> Result<Self, TargetError> {
        let (base_url, path, name) = parts(url.trim());
        let mut settings = client::Settings::new(base_url);
        settings.path = path;
        settings.headers = vec![("accept".to_owned(), ACCEPT.to_owned())];
        settings.headers.extend_from_slice(headers);
        settings.ca_file = ca_file;
        let target = Target::resolve(&settings)?;
        Ok(Self { name, target })
    }

    /// Its host, port and path. What follows the path is left out, as it may be a secret.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// The root of an address, the path with what follows it, and a name for people.
fn parts(url: &str) -> (String, String, String) {
    let uri = url.parse::<Uri>().unwrap_or_default();
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        // What is wrong with it is told when it is resolved.
        return (url.to_owned(), PATH.to_owned(), url.to_owned());
    };
    let path = match uri.path_and_query() {
        Some(path) if path.as_str() != "/" => path.as_str(),
        _ => PATH,
    };
    let shown = path.split('?').next().unwrap_or_default();
    let name = format!("{authority}{shown}");
    (format!("{scheme}://{authority}"), path.to_owned(), name)
}

/// Scrapes until it is stopped. Dropped, it ends by itself and what it has is lost.
#[derive(Debug)]
pub struct Scraper {
    stop: watch::Sender<bool>,
    latest: Latest,
    thread: JoinHandle<Scraped>,
}

/// What each target last said, if its last scrape did not fail.
type Latest = Arc<Mutex<Vec<Option<ServerSample>>>>;

impl Scraper {
    /// Begins, and returns when each target was asked once: what a server has counted before the run is
    /// known then. Later scrapes are at the multiples of the interval on the run's clock.
    ///
    /// # Errors
    /// If the system has no thread or no socket for it.
    pub fn start(settings: Settings, clock: RunClock) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let latest: Latest = Arc::new(Mutex::new(vec![None; settings.targets.len()]));
        let (stop, stopped) = watch::channel(false);
        let (begun, beginning) = mpsc::channel::<()>();
        let shared = Arc::clone(&latest);
        let work = move || {
            let scrape = scrape_all(settings, clock, stopped, shared, begun);
            LocalSet::new().block_on(&runtime, scrape)
        };
        let thread = thread::Builder::new()
            .name("scrape".to_owned())
            .spawn(work)?;
        // Each target drops its sender after its first scrape; nothing is ever sent.
        let _ = beginning.recv();
        Ok(Self {
            stop,
            latest,
            thread,
        })
    }

    /// What all targets said in their last scrapes; those that failed say nothing.
    #[must_use]
    pub fn latest(&self) -> Point {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let samples = || latest.iter().flatten();
        let at_ns = samples().map(|sample| sample.at_ns).max().unwrap_or(0);
        Point::of(at_ns, samples())
    }

    /// Asks each target for the last time and gives all that was scraped. Takes as long as the
    /// scrapes: at most twice their timeout.
    #[must_use]
    pub fn stop(self) -> Scraped {
        // Nobody listens only if the thread has ended, which joining it tells.
        let _ = self.stop.send(true);
        self.thread
            .join()
            .unwrap_or_else(|defect| panic::resume_unwind(defect))
    }
}

async fn scrape_all(
    settings: Settings,
    clock: RunClock,
    stopped: watch::Receiver<bool>,
    latest: Latest,
    begun: mpsc::Sender<()>,
) -> Scraped {
    let every_ns = (settings.every.as_nanos() as Nanos).max(1);
    let settings = Rc::new(settings);
    let one = |index: usize| Asking {
        settings: Rc::clone(&settings),
        index,
        clock,
        latest: Arc::clone(&latest),
        scrapes: Vec::new(),
    };
    let start =
        |index| tokio::task::spawn_local(one(index).run(every_ns, stopped.clone(), begun.clone()));
    let tasks: Vec<_> = (0..settings.targets.len()).map(start).collect();
    drop(begun);
    let mut targets = Vec::with_capacity(tasks.len());
    for task in tasks {
        match task.await {
            Ok(scrapes) => targets.push(scrapes),
            Err(defect) => panic::resume_unwind(defect.into_panic()),
        }
    }
    Scraped { every_ns, targets }
}

/// One target, and what it has said.
struct Asking {
    settings: Rc<Settings>,
    index: usize,
    clock: RunClock,
    latest: Latest,
    scrapes: Vec<Scrape>,
}

impl Asking {
    async fn run(
        mut self,
        every_ns: Nanos,
        mut stopped: watch::Receiver<bool>,
        begun: mpsc::Sender<()>,
    ) -> TargetScrapes {
        self.scrape().await;
        drop(begun);
        let mut tick = 0;
        loop {
            let due = tokio::time::Instant::from_std(self.clock.instant(tick * every_ns));
            tokio::select! {
                () = tokio::time::sleep_until(due) => self.scrape().await,
                told = stopped.changed() => {
                    // Without anyone who could tell, nobody wants what there is.
                    if told.is_ok() {
                        self.scrape().await;
                    }
                    break;
                }
            }
            tick = self.clock.now() / every_ns + 1;
        }
        TargetScrapes {
            name: self.settings.targets[self.index].name.clone(),
            scrapes: self.scrapes,
        }
    }

    async fn scrape(&mut self) {
        let asked = tokio::time::timeout(self.settings.timeout, self.ask()).await;
        let at_ns = self.clock.now();
        let limit_ms = self.settings.timeout.as_millis() as u64;
        let result = asked.unwrap_or(Err(ScrapeFailure::TimedOut { limit_ms }));
        let result = result.map(|sample| ServerSample { at_ns, ..sample });
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        latest[self.index] = result.as_ref().ok().cloned();
        self.scrapes.push(Scrape { at_ns, result });
    }

    async fn ask(&self) -> Result<ServerSample, ScrapeFailure> {
        let target = &self.settings.targets[self.index].target;
        let fetched = fetch(target, self.clock, PAGE_BYTES_MAX).await;
        let fetched = fetched.map_err(|error| match error {
            FetchError::NotConnected(message) | FetchError::Broken(message) => {
                ScrapeFailure::Unreachable(message)
            }
            FetchError::TooLong { .. } => ScrapeFailure::NotMetrics(error.to_string()),
        })?;
        if fetched.status != 200 {
            return Err(ScrapeFailure::Status(fetched.status));
        }
        let none = |error: &dyn ToString| ScrapeFailure::NotMetrics(error.to_string());
        let page = std::str::from_utf8(&fetched.body).map_err(|error| none(&error))?;
        let samples = exposition::parse(page).map_err(|error| none(&error))?;
        let selector = self.settings.replicas.as_ref();
        Ok(ServerSample::of(&samples, 0, selector))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Instant;

    use super::*;

    /// Answers every request with what the function makes of its number; `None` never answers.
    struct Server {
        url: String,
        asked: Arc<AtomicUsize>,
    }

    impl Server {
        fn start(answer: impl Fn(usize) -> Option<String> + Send + 'static) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            let url = format!("http://{}", listener.local_addr().expect("an address"));
            let asked = Arc::new(AtomicUsize::new(0));
            let counter = Arc::clone(&asked);
            // It ends with the process: nothing of it is joined.
            thread::spawn(move || {
                let mut unanswered = Vec::new();
                for stream in listener.incoming().flatten() {
                    let number = counter.fetch_add(1, Ordering::SeqCst);
                    match answer(number) {
                        Some(answer) => respond(stream, &answer),
                        None => unanswered.push(stream),
                    }
                }
            });
            Self { url, asked }
        }

        fn target(&self) -> ScrapeTarget {
            ScrapeTarget::resolve(&self.url, &[], None).expect("an address")
        }

        /// Waits until it was asked so often; generous, as machines may be busy.
        fn wait_for(&self, requests: usize) {
            let deadline = Instant::now() + Duration::from_secs(60);
            while self.asked.load(Ordering::SeqCst) < requests {
                assert!(
                    Instant::now() < deadline,
                    "it was not asked {requests} times"
                );
                thread::sleep(Duration::from_millis(2));
            }
        }
    }

    fn respond(mut stream: TcpStream, answer: &str) {
        let mut request = Vec::new();
        let mut buffer = [0; 1024];
        while !request.ends_with(b"\r\n\r\n") {
            match stream.read(&mut buffer) {
                Ok(0) | Err(_) => return,
                Ok(count) => request.extend_from_slice(&buffer[..count]),
            }
        }
        let request = String::from_utf8_lossy(&request).to_lowercase();
        assert!(
            request.starts_with("get /metrics http/1.1\r\n"),
            "{request}"
        );
        assert!(
            request.contains("accept: text/plain;version=0.0.4\r\n"),
            "{request}"
        );
        let _ = stream.write_all(answer.as_bytes());
    }

    fn page(body: &str) -> String {
        let length = body.len();
        format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n\r\n{body}"
        )
    }

    fn settings(targets: Vec<ScrapeTarget>) -> Settings {
        Settings {
            every: Duration::from_millis(20),
            // A machine that is busy takes its time.
            timeout: Duration::from_secs(60),
            ..Settings::new(targets)
        }
    }

    fn clock() -> RunClock {
        RunClock::starting_at(Instant::now())
    }

    #[test]
    fn a_server_is_asked_before_during_and_after() {
        let server =
            Server::start(|number| Some(page(&format!("vllm:num_requests_running {number}\n"))));
        let scraper = Scraper::start(settings(vec![server.target()]), clock()).expect("it starts");
        assert!(
            server.asked.load(Ordering::SeqCst) >= 1,
            "asked before start returns"
        );
        server.wait_for(5);
        assert!(scraper.latest().running.is_some());
        let scraped = scraper.stop();
        let target = &scraped.targets[0];
        let host = server.url.strip_prefix("http://").expect("it has a scheme");
        assert_eq!(target.name, format!("{host}/metrics"));
        assert_eq!(scraped.every_ns, 20_000_000);
        let running: Vec<_> = target.samples().map(|sample| sample.running).collect();
        let expected: Vec<_> = (0..running.len() as u64).map(Some).collect();
        assert_eq!(running, expected);
        assert!(running.len() >= 6, "{running:?}");
        assert!(target.scrapes.is_sorted_by_key(|scrape| scrape.at_ns));
    }

    #[test]
    fn a_target_that_never_answers_holds_up_no_other() {
        let silent = Server::start(|_| None);
        let quick = Server::start(|_| Some(page("foresail_ready 1\n")));
        let settings = Settings {
            timeout: Duration::from_millis(500),
            ..settings(vec![silent.target(), quick.target()])
        };
        let scraper = Scraper::start(settings, clock()).expect("it starts");
        quick.wait_for(20);
        let scraped = scraper.stop();
        let timed_out = ScrapeFailure::TimedOut { limit_ms: 500 };
        let failures = &scraped.targets[0].scrapes;
        let is_timeout = |scrape: &Scrape| scrape.result.as_ref().err() == Some(&timed_out);
        assert!(failures.iter().all(is_timeout), "{failures:?}");
        // Each of its scrapes takes as long as 25 of the other's.
        assert!(
            failures.len() < scraped.targets[1].scrapes.len(),
            "{failures:?}"
        );
        assert_eq!(
            scraped.targets[1].samples().count() as u64,
            scraped.samples()
        );
    }

    #[test]
    fn what_is_no_page_of_metrics_is_a_failure_of_its_kind() {
        let answers = [
            "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n".to_owned(),
            page("<!DOCTYPE html>\n"),
            page("vllm:num_requests_running 1"),
            "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nvllm:num_requests_running 1\n"
                .to_owned(),
            "SSH-2.0-OpenSSH_9.6\r\n".to_owned(),
        ];
        let count = answers.len();
        let server = Server::start(move |number| {
            let unremarkable = || page("a 1\n");
            Some(answers.get(number).cloned().unwrap_or_else(unremarkable))
        });
        let scraper = Scraper::start(settings(vec![server.target()]), clock()).expect("it starts");
        server.wait_for(count + 1);
        let scraped = scraper.stop();
        let told = |scrape: &Scrape| match &scrape.result {
            Ok(_) => "an answer".to_owned(),
            Err(failure) => failure.to_string(),
        };
        let told: Vec<String> = scraped.targets[0].scrapes.iter().map(told).collect();
        insta::assert_snapshot!(told[..=count].join("\n"), @r#"
        answered with status 503
        answered with no metrics: line 1: expected the name of a metric, found "<!DOCTYPE html>"
        answered with no metrics: line 1: expected the end of the line: the page breaks off, found "vllm:num_requests_running 1"
        gave no answer: error reading a body from connection
        gave no answer: invalid HTTP version parsed
        an answer
        "#);
        assert!(!scraped.targets[0].is_server());
    }

    #[test]
    fn a_target_that_is_not_there_is_unreachable() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!(
            "http://{}/other?token=secret",
            listener.local_addr().expect("an address")
        );
        drop(listener);
        let target = ScrapeTarget::resolve(&url, &[], None).expect("an address");
        assert!(target.name().ends_with("/other"), "{}", target.name());
        let scraper = Scraper::start(settings(vec![target]), clock()).expect("it starts");
        let scraped = scraper.stop();
        let failures = &scraped.targets[0].scrapes;
        let is_unreachable =
            |scrape: &Scrape| matches!(scrape.result, Err(ScrapeFailure::Unreachable(_)));
        assert!(
            failures.len() >= 2 && failures.iter().all(is_unreachable),
            "{failures:?}"
        );
    }

    #[test]
    fn an_address_that_is_none_says_what_to_write() {
        let error = ScrapeTarget::resolve("localhost:8000", &[], None).unwrap_err();
        assert!(matches!(error, TargetError::Url { .. }), "{error}");
    }

    #[test]
    fn nothing_to_scrape_is_nothing_scraped() {
        let scraper = Scraper::start(settings(Vec::new()), clock()).expect("it starts");
        assert_eq!(scraper.latest(), Point::default());
        assert_eq!(scraper.stop().targets, []);
    }
}
