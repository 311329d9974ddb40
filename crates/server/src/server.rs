//! A server from its start to its end.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::watch;

use crate::config::ServerConfig;
use crate::routes::{Shared, router};
use crate::service::Service;
use crate::worker::work;

/// A server that has its address already, and answers nothing yet.
///
/// Clients that come before [`run`](Self::run) wait. So the address can be taken before a large model is read.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    config: ServerConfig,
    stop: watch::Sender<bool>,
    signals: bool,
}

/// Stops a server from another thread. It can be cloned.
#[derive(Clone, Debug)]
pub struct StopHandle(watch::Sender<bool>);

impl StopHandle {
    /// Lets the server finish the requests under way, for at most [`ServerConfig::drain_s`] seconds, and take no others.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

/// A server that cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// A bound that lets nothing through.
    #[error("[server] {key}: expected {expected}")]
    Config {
        /// The key.
        key: &'static str,
        /// The allowed values.
        expected: String,
    },
    /// An address that cannot be had.
    #[error("cannot listen on {host}:{port}: {source}; is another server running there?")]
    Bind {
        /// The name or address.
        host: String,
        /// The port.
        port: u16,
        /// Why not.
        source: io::Error,
    },
    /// The operating system refused threads or sockets.
    #[error("the server failed: {0}")]
    Io(#[from] io::Error),
}

impl Server {
    /// Takes the address.
    ///
    /// # Errors
    /// A bound of 0, or an address that is taken or not this machine's.
    pub fn bind(config: ServerConfig) -> Result<Self, ServerError> {
        config.validate()?;
        let failed = |source| ServerError::Bind { host: config.host.clone(), port: config.port, source };
        let listener = TcpListener::bind((config.host.as_str(), config.port)).map_err(failed)?;
        let address = listener.local_addr()?;
        if !address.ip().is_loopback() {
            tracing::warn!("{address} can be reached from other machines, and the server asks nobody for a key");
        }
        Ok(Self { listener, address, config, stop: watch::Sender::new(false), signals: false })
    }

    /// Its address, with the port that a configured port 0 became.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A handle that stops it.
    pub fn handle(&self) -> StopHandle {
        StopHandle(self.stop.clone())
    }

    /// Stops on Ctrl-C and, where there is one, SIGTERM. A second Ctrl-C ends the process at once.
    #[must_use]
    pub fn with_signals(self) -> Self {
        Self { signals: true, ..self }
    }

    /// Answers requests until it is stopped. Blocks.
    ///
    /// Requests under way when it is stopped are finished, for at most [`ServerConfig::drain_s`] seconds.
    ///
    /// # Errors
    /// When there are no threads or sockets to be had.
    pub fn run(self, service: Service) -> Result<(), ServerError> {
        let Self { listener, config, stop, signals, .. } = self;
        let drain = Duration::from_secs(config.drain_s);
        let shared = Arc::new(Shared::new(config, service));
        // Two threads read and write JSON; the engine has its own.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let workers: Vec<_> = (0..shared.config.concurrency)
            .map(|_| {
                let shared = shared.clone();
                thread::Builder::new().name("engine".into()).spawn(move || work(&shared))
            })
            .collect();
        let failed = workers.iter().find_map(|worker| worker.as_ref().err().map(|error| io::Error::from(error.kind())));
        let outcome = match failed {
            Some(error) => Err(error),
            None => runtime.block_on(serve(listener, &shared, stop, signals, drain)),
        };
        shared.queue.close();
        if outcome.as_ref().is_ok_and(|is_drained| *is_drained) {
            // A worker catches its engine's panics; whatever else there may be is in the log.
            workers.into_iter().flatten().for_each(|worker| drop(worker.join()));
        } else {
            // The engine hangs; its threads end with the process.
            shared.queue.clear();
        }
        runtime.shutdown_timeout(Duration::from_secs(1));
        Ok(outcome.map(|_| ())?)
    }
}

/// Whether all requests under way were finished.
async fn serve(
    listener: TcpListener,
    shared: &Arc<Shared>,
    stop: watch::Sender<bool>,
    signals: bool,
    drain: Duration,
) -> io::Result<bool> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    if signals {
        stop_on_signals(stop.clone())?;
    }
    let stopped = |mut stop: watch::Receiver<bool>| async move {
        // It fails only if the sender is dropped, and `stop` lives as long as the server.
        let _ = stop.wait_for(|stopped| *stopped).await;
    };
    let serving = axum::serve(listener, router(shared.clone())).with_graceful_shutdown(stopped(stop.subscribe()));
    let overdue = async {
        stopped(stop.subscribe()).await;
        tokio::time::sleep(drain).await;
    };
    tokio::select! {
        outcome = serving.into_future() => outcome.map(|()| true),
        () = overdue => {
            tracing::warn!("requests were under way still {} s after the server was stopped", drain.as_secs());
            Ok(false)
        }
    }
}

fn stop_on_signals(stop: watch::Sender<bool>) -> io::Result<()> {
    #[cfg(unix)]
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::spawn(async move {
        #[cfg(unix)]
        let other = terminate.recv();
        #[cfg(not(unix))]
        let other = std::future::pending::<Option<()>>();
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = other => {}
        }
        stop.send_replace(true);
        if tokio::signal::ctrl_c().await.is_ok() {
            std::process::exit(130);
        }
    });
    Ok(())
}
