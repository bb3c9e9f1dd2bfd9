//! A server on a free port, with a scripted device.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use foresail_engine::backend::Limits;
use foresail_engine::driver::{Replica, Settings, Stats};
use foresail_engine::server::{
    self, AccessLog, AdapterLoadError, App, Ended, Engine, Keys, ServerSettings,
};
use foresail_engine::text::Tokenizer;
use foresail_engine::weights::Adapter;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::client::{Answer, Client};
use crate::device::{ScriptedDevice, VOCAB_SIZE, limits};

pub(crate) const MODEL: &str = "accounts/test/models/tiny";
/// Another name of the same model.
pub(crate) const ALIAS: &str = "tiny";

/// How to set a server up.
pub(crate) struct Setup {
    pub(crate) limits: Limits,
    pub(crate) waiting_max: usize,
    pub(crate) step: Duration,
    pub(crate) settings: ServerSettings,
    pub(crate) keys: Option<Keys>,
    pub(crate) log: AccessLog,
    pub(crate) adapter_loading: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            limits: limits(),
            waiting_max: 64,
            step: Duration::ZERO,
            settings: ServerSettings::default(),
            keys: None,
            log: AccessLog::none(),
            adapter_loading: true,
        }
    }
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) app: Arc<App>,
    pub(crate) replica: Replica,
    held: Arc<AtomicBool>,
    stop: oneshot::Sender<()>,
    served: JoinHandle<std::io::Result<Ended>>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with(Setup::default()).await
    }

    pub(crate) async fn with(setup: Setup) -> Self {
        let held = Arc::new(AtomicBool::new(false));
        let device = ScriptedDevice {
            step: setup.step,
            held: Arc::clone(&held),
        };
        let mut settings = Settings::new(setup.limits, VOCAB_SIZE);
        settings.waiting_max = setup.waiting_max;
        let replica = Replica::start(Box::new(device), settings).expect("the replica starts");
        let app = App::new(setup.settings, setup.keys, setup.log);
        app.ready(Engine {
            replica: replica.clone(),
            tokenizer: Arc::new(Tokenizer::bytes()),
            names: vec![MODEL.to_owned(), ALIAS.to_owned()],
            eos_token_ids: vec![Tokenizer::BYTES_EOS],
            adapter_loader: setup.adapter_loading.then(|| Box::new(load_adapter) as _),
            entrance: None,
        });
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async {
            // A sender that is gone asks to stop as well.
            let _ = stopped.await;
        };
        let served = tokio::spawn(server::serve(listener, Arc::clone(&app), shutdown));
        Self {
            address,
            app,
            replica,
            held,
            stop,
            served,
        }
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.address)
    }

    pub(crate) async fn post(&self, path: &str, body: &serde_json::Value) -> Answer {
        self.client().post(path, body).await
    }

    /// The device computes nothing until it is let go.
    pub(crate) fn hold(&self) {
        self.held.store(true, Ordering::SeqCst);
    }

    pub(crate) fn let_go(&self) {
        self.held.store(false, Ordering::SeqCst);
    }

    /// Waits until the replica is as described; fails after a time that no busy machine takes.
    pub(crate) async fn until(&self, what: &str, is_so: impl Fn(&Stats) -> bool) {
        self.wait(what, || is_so(&self.replica.stats())).await;
    }

    pub(crate) async fn wait(&self, what: &str, is_so: impl Fn() -> bool) {
        let began = Instant::now();
        while !is_so() {
            let stats = self.replica.stats();
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "{what}: {stats:?}"
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Asks it to stop, and does not wait.
    pub(crate) fn ask_to_stop(self) -> JoinHandle<std::io::Result<Ended>> {
        let _ = self.stop.send(());
        self.served
    }

    /// Stops it; nothing may be left of what was asked.
    pub(crate) async fn stop(self) -> Ended {
        let replica = self.replica.clone();
        let ended = self.ask_to_stop().await.expect("it does not panic");
        let stats = replica.stats();
        assert_eq!(
            (stats.running, stats.waiting, stats.kv_blocks_used),
            (0, 0, 0)
        );
        ended.expect("the socket works")
    }
}

fn load_adapter(name: &str, path: &Path) -> Result<Adapter, AdapterLoadError> {
    if path.ends_with("missing") {
        return Err(AdapterLoadError {
            public: "the adapter cannot be read".to_owned(),
            detail: format!("{}: no such file", path.display()),
        });
    }
    Ok(Adapter {
        name: name.to_owned(),
        rank: 8,
        scale: 1.0,
        layers: Vec::new(),
    })
}
