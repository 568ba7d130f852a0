//! Builds the parts of the daemon in order, waits, and stops them in reverse.
//!
//! [`App`] is what every part may lean on: configuration, faults, counters, log level, control file
//! and tasks. Databases, the local sockets and the roles are built on top of it and enter through
//! [`App::serve`], which drives them by [`Parts`].

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use thiserror::Error;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use crate::assemble;
use crate::communication::{CommunicationLog, LogFile};
use crate::config::Config;
use crate::control_file::{self, Control, ControlError, ControlFile};
use crate::fault::{Exit, Fault, FaultBoard, FaultCode};
use crate::instance::{self, InstanceError, InstanceLock};
use crate::parts::DeviceParts;
use crate::role::Role;
use crate::role::supervisor::{self, Intent, Parts, Setup, SupervisorHandle};
use crate::settings::Settings;
use crate::shutdown::{ABORT, DRAIN, Request, Signals};
use crate::systemd;
use crate::tasks::Tasks;
use crate::telemetry::{LogLevel, Stats};
use crate::unix_socket::Access;

/// Handlers wait for the databases' own threads most of the time; two of these keep both cores of a
/// small device busy.
const WORKER_THREADS: usize = 2;
/// A thread that hangs in a system call must not hold the end of the process.
const RUNTIME_DRAIN: Duration = Duration::from_secs(1);

/// Why the daemon does not come up at all.
#[derive(Debug, Error)]
pub enum AppError {
    /// The data directory or the process itself.
    #[error(transparent)]
    Instance(#[from] InstanceError),
    /// The control file could not be read; damaged ones do not lead here.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// Keys, the own database, or the local sockets.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The runtime or the signal handlers.
    #[error("{action}: {source}")]
    System {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl AppError {
    /// How the process ends.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Instance(error) => error.fault().code.exit(),
            Self::Control(error) => error.fault().code.exit(),
            Self::Fault(fault) => fault.code.exit(),
            Self::System { .. } => Exit::Internal,
        }
    }

    /// What a person is told, with the fault's code where there is one.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Instance(error) => error.fault().to_string(),
            Self::Control(error) => error.fault().to_string(),
            Self::Fault(fault) => fault.to_string(),
            Self::System { .. } => self.to_string(),
        }
    }
}

/// The control file, or why there is none to write: then no role can be chosen, but the device
/// serves its local data all the same.
#[derive(Debug)]
pub enum Durable {
    /// It can be read and written.
    Usable(ControlFile),
    /// It was left as it is.
    Unusable(Fault),
}

impl Durable {
    fn load(config: &Config, faults: &FaultBoard) -> Result<Self, ControlError> {
        match ControlFile::load(&config.data_dir) {
            Ok(file) => Ok(Self::Usable(file)),
            Err(error @ (ControlError::Damaged { .. } | ControlError::Newer { .. })) => {
                faults.set(error.fault());
                Ok(Self::Unusable(error.fault()))
            }
            Err(
                error @ (ControlError::Io { .. }
                | ControlError::EpochRefused { .. }
                | ControlError::Takeover(_)),
            ) => Err(error),
        }
    }

    /// What the file says; the default while it cannot be used.
    #[must_use]
    pub fn current(&self) -> Control {
        match self {
            Self::Usable(file) => file.current(),
            Self::Unusable(_) => Control::default(),
        }
    }

    /// The file, to write something other than the role.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn file(&self) -> Result<&ControlFile, Fault> {
        match self {
            Self::Usable(file) => Ok(file),
            Self::Unusable(fault) => Err(fault.clone()),
        }
    }

    /// Writes to the file on a thread that may block.
    ///
    /// # Errors
    /// Why it cannot be used or written; the old contents then stay in force.
    ///
    /// # Cancel safety
    /// It may be written although the future was dropped.
    pub async fn write<T: Send + 'static>(
        self: &Arc<Self>,
        write: impl FnOnce(&ControlFile) -> Result<T, ControlError> + Send + 'static,
    ) -> Result<T, Fault> {
        let control = self.clone();
        let written =
            tokio::task::spawn_blocking(move || write(control.file()?).map_err(|error| error.fault()));
        written.await.unwrap_or_else(|_| Err(Fault::now(FaultCode::ControlFile)))
    }
}

impl Intent for Durable {
    fn persist(&self, wanted: Role) -> Result<(), Fault> {
        self.file()?.persist(wanted)
    }
}

/// What every part of the daemon leans on.
#[derive(Debug)]
pub struct App {
    /// What the daemon was told.
    pub config: Arc<Config>,
    /// What of it is in force by now.
    pub settings: Settings,
    /// What happened with other devices.
    pub communication: CommunicationLog,
    /// Who may use the local sockets.
    pub access: Access,
    /// What needs a person.
    pub faults: FaultBoard,
    /// What is counted.
    pub stats: Arc<Stats>,
    /// The log's level.
    pub log: LogLevel,
    /// Wanted role, group and epoch on disk.
    pub control: Arc<Durable>,
    /// Every task outside the roles; its token ends the process's work.
    pub tasks: Tasks,
    communication_file: Mutex<Option<LogFile>>,
    // Held until everything else is gone.
    _lock: InstanceLock,
}

impl App {
    /// Takes the data directory and reads what is durable. Blocks; needs no runtime.
    ///
    /// # Errors
    /// Why the daemon cannot run here.
    pub fn prepare(config: Config, log: LogLevel) -> Result<Self, AppError> {
        instance::harden()?;
        let access = Access::of(&config.local);
        instance::prepare_directories(&config.data_dir, &config.run_dir, &access)?;
        let lock = InstanceLock::acquire(&config.data_dir)?;
        let faults = FaultBoard::default();
        let control = Durable::load(&config, &faults)?;
        let (communication, file) = CommunicationLog::open(&config.data_dir, config.communication);
        let config = Arc::new(config);
        Ok(Self {
            settings: Settings::new(config.clone(), log.clone()),
            communication,
            communication_file: Mutex::new(Some(file)),
            config,
            access,
            faults,
            stats: Arc::default(),
            log,
            control: Arc::new(control),
            tasks: Tasks::default(),
            _lock: lock,
        })
    }

    /// Starts the role that was wanted last, opens the local sockets by `open`, says ready, and
    /// works until asked to stop.
    ///
    /// # Errors
    /// The signal handlers, or the local sockets.
    ///
    /// # Cancel safety
    /// The parts are left to the end of the process.
    pub async fn serve<P: Parts>(
        &self,
        parts: Arc<P>,
        open: impl AsyncFnOnce(&SupervisorHandle) -> Result<(), Fault>,
    ) -> Result<Exit, AppError> {
        let mut signals = Signals::install()
            .map_err(|source| AppError::System { action: "install signal handlers", source })?;
        let settings = self.settings.clone();
        let setup = Setup {
            parts,
            intent: Arc::clone(&self.control),
            faults: self.faults.clone(),
            stats: Arc::clone(&self.stats),
            retry_max: Box::new(move || settings.now().reconnect_max),
        };
        let supervisor = supervisor::spawn(setup, self.control.current().wanted, &self.tasks);
        self.show_status(&supervisor);
        self.keep_communication();
        open(&supervisor).await?;
        systemd::ready("ready");
        tracing::info!(version = env!("CARGO_PKG_VERSION"), "ready");
        let exit = loop {
            tokio::select! {
                request = signals.next() => match request {
                    Request::Stop => break Exit::Clean,
                    // The log says what came of it.
                    Request::Reload => drop(self.settings.reload()),
                },
                () = supervisor.stuck() => break Exit::Internal,
            }
        };
        self.stop(&supervisor).await;
        Ok(exit)
    }

    /// Keeps the line of `systemctl status`.
    fn show_status(&self, supervisor: &SupervisorHandle) {
        let (mut state, stop) = (supervisor.watch(), self.tasks.token().clone());
        self.tasks.spawn("status-line", async move {
            let follow = async {
                loop {
                    let line = {
                        let state = state.borrow_and_update();
                        format!(
                            "wanted {}, running {}, {:?}",
                            state.wanted(),
                            state.running_role(),
                            state.phase()
                        )
                    };
                    systemd::status(&line);
                    if state.changed().await.is_err() {
                        return;
                    }
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = follow => {}
            }
        });
    }

    /// Writes the communication log, and has it follow its bounds.
    fn keep_communication(&self) {
        let file = self.communication_file.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(file) = file else { return };
        let stop = self.tasks.token().clone();
        self.tasks.spawn("communication-log", self.communication.clone().keep(file, stop.clone()));
        let (log, mut settings) = (self.communication.clone(), self.settings.watch());
        self.tasks.spawn("communication-bounds", async move {
            while let Some(Ok(())) = stop.run_until_cancelled(settings.changed()).await {
                log.bound(settings.borrow_and_update().communication);
            }
        });
    }

    /// The roles first, then everything else, all within [`ABORT`].
    async fn stop(&self, supervisor: &SupervisorHandle) {
        systemd::stopping();
        tracing::info!("stopping");
        let in_order = async {
            supervisor.shutdown().await;
            self.tasks.stop(DRAIN).await;
        };
        if timeout(ABORT, in_order).await.is_err() {
            tracing::error!(limit_seconds = ABORT.as_secs(), "stopped without waiting any longer");
        }
    }
}

/// Runs the daemon until it is asked to stop.
///
/// # Errors
/// Why it did not come up.
pub fn run(config: Config, log: LogLevel) -> Result<Exit, AppError> {
    let app = App::prepare(config, log)?;
    let runtime = runtime()?;
    let exit = runtime.block_on(work(&app));
    runtime.shutdown_timeout(RUNTIME_DRAIN);
    exit
}

async fn work(app: &App) -> Result<Exit, AppError> {
    let device = assemble::device(app)?;
    let parts = Arc::new(DeviceParts::new(device.clone(), app.tasks.clone()));
    let open = async |supervisor: &SupervisorHandle| {
        assemble::note(app, supervisor);
        assemble::follow_capabilities(app, &device, supervisor);
        assemble::obey_successors(app, &device, supervisor);
        assemble::obey_invitations(app, &device, supervisor);
        assemble::tell_who_reigns(app, &device);
        assemble::show_the_way(app, &device, supervisor);
        assemble::archive(app, &device, supervisor);
        assemble::watch_over(app, &device, supervisor);
        assemble::sockets(app, &device, supervisor).await
    };
    let exit = app.serve(parts, open).await;
    if let Err(error) = device.own.db().close().await {
        tracing::error!(%error, "close own database");
    }
    exit
}

/// Sets a control file that cannot be used aside, while no daemon runs, and returns its new name.
///
/// # Errors
/// A daemon runs, or the storage refused.
pub fn set_control_file_aside(config: &Config) -> Result<PathBuf, AppError> {
    let _lock = InstanceLock::acquire(&config.data_dir)?;
    Ok(control_file::set_aside(&config.data_dir)?)
}

fn runtime() -> Result<Runtime, AppError> {
    Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .thread_name("mfpsync")
        .enable_all()
        .build()
        .map_err(|source| AppError::System { action: "start the runtime", source })
}

#[cfg(test)]
mod tests {
    use rustix::process::{Signal, getpid, kill_process};

    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::role::{Exits, Part};
    use crate::telemetry::Level;

    /// Parts that never come up.
    struct NoParts;

    impl Parts for NoParts {
        async fn start(&self, part: Part, _stop: CancellationToken, _exits: Exits) -> Result<(), Fault> {
            Err(Fault { text: format!("this build has no {part}"), ..Fault::now(FaultCode::Protocol) })
        }

        async fn stop(&self, _part: Part) {}
    }

    fn config(directory: &tempfile::TempDir, level: &str) -> Config {
        let path = directory.path().join("mfpsyncd.toml");
        let base = directory.path().display();
        let text = format!(
            "data_dir = \"{base}/data\"\nrun_dir = \"{base}/run\"\nlog = {{ level = \"{level}\" }}\n"
        );
        std::fs::write(&path, text).unwrap();
        Config::load(&path).unwrap()
    }

    fn app(directory: &tempfile::TempDir) -> Result<App, AppError> {
        App::prepare(config(directory, "info"), LogLevel::new(Level::Info, |_| {}))
    }

    #[test]
    fn a_second_daemon_ends_with_the_code_for_it() {
        let directory = tempfile::tempdir().unwrap();
        let _first = app(&directory).unwrap();
        let error = app(&directory).unwrap_err();
        assert_eq!(error.exit(), Exit::AlreadyRunning);
        assert!(error.text().starts_with("F-ALREADY-RUNNING: "), "{}", error.text());
        let refused = set_control_file_aside(&config(&directory, "info")).unwrap_err();
        assert_eq!(refused.exit(), Exit::AlreadyRunning);
    }

    #[test]
    fn a_damaged_control_file_leaves_the_daemon_idle_and_unchanged_until_it_is_set_aside() {
        let directory = tempfile::tempdir().unwrap();
        drop(app(&directory).unwrap());
        let path = directory.path().join("data").join(control_file::FILE_NAME);
        std::fs::write(&path, "torn").unwrap();
        let damaged = app(&directory).unwrap();
        assert_eq!(damaged.faults.snapshot()[0].code, FaultCode::ControlFile);
        assert_eq!(damaged.control.current(), Control::default());
        assert_eq!(damaged.control.persist(Role::Server).unwrap_err().code, FaultCode::ControlFile);
        assert_eq!(std::fs::read(&path).unwrap(), b"torn");
        drop(damaged);
        assert!(set_control_file_aside(&config(&directory, "info")).unwrap().ends_with("control.damaged-1"));
        app(&directory).unwrap().control.persist(Role::Server).unwrap();
    }

    #[tokio::test]
    async fn the_daemon_says_which_part_it_lacks_reloads_and_stops() {
        let _turn = crate::shutdown::ONE_AT_A_TIME.lock().await;
        let directory = tempfile::tempdir().unwrap();
        let app = Arc::new(app(&directory).unwrap());
        app.control.persist(Role::Client).unwrap();
        let mut faults = app.faults.watch();
        let serving = Arc::clone(&app);
        let serving = tokio::spawn(async move { serving.serve(Arc::new(NoParts), async |_| Ok(())).await });
        let limit = Duration::from_secs(30);
        let standing =
            timeout(limit, faults.wait_for(|faults| !faults.is_empty())).await.unwrap().unwrap().clone();
        assert!(standing[0].text.starts_with("this build has no client"), "{}", standing[0]);
        config(&directory, "debug");
        app.settings.reload().unwrap();
        assert_eq!(app.log.current(), Level::Debug);
        kill_process(getpid(), Signal::TERM).unwrap();
        assert_eq!(timeout(limit, serving).await.unwrap().unwrap().unwrap(), Exit::Clean);
        assert_eq!(app.tasks.count(), 0);
        assert_eq!(app.control.current().wanted, Role::Client);
    }
}
