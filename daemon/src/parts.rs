//! What the supervisor starts and stops: the server, the client and the replica part of this device. One
//! that loses a task it cannot do without is ended and reported.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use tokio_util::sync::CancellationToken;

use crate::client::ClientPart;
use crate::device::Device;
use crate::fault::{Fault, FaultCode};
use crate::replica::ReplicaPart;
use crate::role::{Exits, Part, Parts};
use crate::server::ServerPart;
use crate::tasks::Tasks;
use crate::vital::Vital;

/// Starts and stops the parts of one device.
#[derive(Debug)]
pub struct DeviceParts {
    device: Arc<Device>,
    client: ArcSwapOption<ClientPart>,
    replica: ArcSwapOption<ReplicaPart>,
    tasks: Tasks,
}

impl DeviceParts {
    /// The parts of `device`, none running.
    #[must_use]
    pub fn new(device: Arc<Device>, tasks: Tasks) -> Self {
        Self { device, client: ArcSwapOption::empty(), replica: ArcSwapOption::empty(), tasks }
    }

    async fn bring_up(&self, part: Part, exits: Exits) -> Result<(), Fault> {
        let vital = match part {
            Part::Server => {
                let server = ServerPart::start(&self.device).await?;
                let vital = server.vital.clone();
                self.device.server.store(Some(Arc::new(server)));
                self.device.serves.notify_one();
                vital
            }
            Part::Client => {
                let client = ClientPart::start(&self.device).await?;
                let vital = client.vital.clone();
                self.client.store(Some(Arc::new(client)));
                vital
            }
            Part::Replica => {
                let replica = ReplicaPart::start(&self.device).await?;
                let vital = replica.vital.clone();
                self.replica.store(Some(Arc::new(replica)));
                vital
            }
        };
        self.tasks.spawn("watch-part", watch(part, vital, exits));
        Ok(())
    }
}

impl Parts for DeviceParts {
    async fn start(&self, part: Part, stop: CancellationToken, exits: Exits) -> Result<(), Fault> {
        // What an earlier life that ended by itself has left.
        self.stop(part).await;
        tokio::select! {
            started = self.bring_up(part, exits) => started,
            () = stop.cancelled() => Err(Fault::with_detail(FaultCode::Listen, "stopped while starting")),
        }
    }

    async fn stop(&self, part: Part) {
        match part {
            Part::Server => {
                if let Some(server) = self.device.server.swap(None) {
                    server.stop().await;
                }
            }
            Part::Client => {
                if let Some(client) = self.client.swap(None) {
                    client.stop().await;
                }
            }
            Part::Replica => {
                if let Some(replica) = self.replica.swap(None) {
                    replica.stop().await;
                }
            }
        }
    }
}

/// Ends a part as soon as one of its vital tasks is lost: by halves it would only seem to work.
async fn watch(part: Part, vital: Vital, exits: Exits) {
    let Some(task) = vital.lost().await else { return };
    vital.stop().cancel();
    let fault = Fault::with_detail(FaultCode::Part, format_args!("{part}: {task}"));
    exits.report(fault).await;
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ring::rand::SystemRandom;
    use tokio::time::timeout;

    use super::*;
    use crate::app::App;
    use crate::assemble;
    use crate::config::Config;
    use crate::group::{self, Founder};
    use crate::role::supervisor::{self, Setup, SupervisorHandle};
    use crate::role::{Role, RoleState};
    use crate::telemetry::{Level, LogLevel};

    const PATIENCE: Duration = Duration::from_secs(30);

    struct Bench {
        _directory: tempfile::TempDir,
        app: App,
        device: Arc<Device>,
        parts: Arc<DeviceParts>,
        supervisor: SupervisorHandle,
    }

    impl Bench {
        /// A founded group's server that is a client as well.
        async fn running() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("mfpsyncd.toml");
            let base = directory.path().display();
            let text = format!(
                "data_dir = \"{base}/data\"\nrun_dir = \"{base}/run\"\nlisten = [\"127.0.0.1:0\"]\n\
                 [discovery]\nenabled = false\n[sync]\nreconnect_max_seconds = 1\n"
            );
            std::fs::write(&path, text).unwrap();
            let app = App::prepare(Config::load(&path).unwrap(), LogLevel::new(Level::Info, |_| {})).unwrap();
            let device = assemble::device(&app).unwrap();
            let founder =
                Founder { identity: &device.identity, name: "copier", keys: &*device.keys, endpoints: &[] };
            let (founding, _kit) =
                founder.prepare("Office", "seven quiet printers", &SystemRandom::new()).unwrap();
            group::found(&device.config.data_dir, &founding).unwrap();
            let head = group::head(&device.config.data_dir.join(group::MASTER_FILE)).unwrap().unwrap();
            let incarnation = crate::own_data::draw_incarnation(&*device.random).unwrap();
            let membership = group::membership_of(&head);
            let entered =
                device.own.change_membership(move |write| write.join(&membership, incarnation, None));
            entered.await.unwrap();
            let parts = Arc::new(DeviceParts::new(device.clone(), app.tasks.clone()));
            let setup = Setup {
                parts: parts.clone(),
                intent: app.control.clone(),
                faults: app.faults.clone(),
                stats: app.stats.clone(),
                retry_max: Box::new(|| Duration::from_secs(1)),
            };
            let supervisor = supervisor::spawn(setup, Role::ServerClient, &app.tasks);
            let bench = Self { _directory: directory, app, device, parts, supervisor };
            bench.until(|state| *state == RoleState::Running(Role::ServerClient)).await;
            bench
        }

        async fn until(&self, state: impl Fn(&RoleState) -> bool) {
            let mut states = self.supervisor.watch();
            timeout(PATIENCE, states.wait_for(state)).await.expect("in time").expect("supervised");
        }

        /// A part whose vital task is gone is a fault that names both, comes up anew, and then is none.
        async fn is_replaced(&self, vital: &Vital, named: &str) {
            let mut faults = self.app.faults.watch();
            vital.spawn("quitter", async {});
            let shown = faults.wait_for(|faults| faults.iter().any(|fault| fault.code == FaultCode::Part));
            let text = timeout(PATIENCE, shown).await.expect("in time").unwrap()[0].text.clone();
            assert!(text.ends_with(&format!("({named}: quitter)")), "{text}");
            self.until(|state| *state == RoleState::Running(Role::ServerClient)).await;
            assert!(self.app.faults.snapshot().is_empty());
        }

        async fn end(self) {
            self.supervisor.shutdown().await;
            assert_eq!(self.app.tasks.stop(PATIENCE).await, Vec::<&str>::new());
        }
    }

    #[tokio::test]
    async fn a_part_that_loses_a_task_is_a_fault_and_comes_up_anew() {
        let bench = Bench::running().await;
        let (server, client) =
            (bench.device.server.load_full().unwrap(), bench.parts.client.load_full().unwrap());
        bench.is_replaced(&server.vital, "server").await;
        assert!(!Arc::ptr_eq(&server, &bench.device.server.load_full().unwrap()));
        assert!(Arc::ptr_eq(&client, &bench.parts.client.load_full().unwrap()), "the other one goes on");
        bench.is_replaced(&client.vital, "client").await;
        assert!(!Arc::ptr_eq(&client, &bench.parts.client.load_full().unwrap()));
        bench.end().await;
    }
}
