//! The supervisor: the one task that gathers events, asks the role machine, and runs its effects.
//!
//! It owns no part itself; the serving and the pulling are plugged in through [`Parts`]. The wanted
//! role is written through [`Intent`] before anything follows from it. Buttons reach it through
//! [`SupervisorHandle`].

use std::future::pending;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::machine::{Part, Rejected, Role, RoleEffect, RoleEvent, RoleState, step};
use crate::control_file::ControlFile;
use crate::fault::{Fault, FaultBoard, FaultCode};
use crate::shutdown::{ABORT, DRAIN};
use crate::tasks::Tasks;
use crate::telemetry::Stats;

/// A few panels and a web page may press at once; more than that is answered as busy.
const COMMANDS: usize = 8;
/// At most one exit for each part and life is in flight; a full channel makes the part wait.
const EXITS: usize = 4;
/// Opening a large database after a power cut takes a while; longer than this it hangs.
const START_LIMIT: Duration = Duration::from_secs(120);
/// A press is answered when the decision is durable; a disk slower than this is at fault.
const SWITCH_LIMIT: Duration = Duration::from_secs(10);
/// A part aborts its own tasks at [`ABORT`]; that takes a moment.
const STOP_MARGIN: Duration = Duration::from_secs(1);
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// What can be started and stopped, implemented by whoever assembles the daemon.
pub trait Parts: Send + Sync + 'static {
    /// Brings a part up; returns when it runs. Once `stop` is cancelled it is to return soon, in
    /// whichever way. On an error, and when dropped half-way, nothing of the part is left running.
    fn start(
        &self,
        part: Part,
        stop: CancellationToken,
        exits: Exits,
    ) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Ends a part, also one that is half-way up or has exited by itself; returns when nothing of it
    /// runs any more, after at most [`ABORT`].
    fn stop(&self, part: Part) -> impl Future<Output = ()> + Send;
}

/// Where the wanted role is written.
pub trait Intent: Send + Sync + 'static {
    /// Writes the role; returns when it is on stable storage. May block.
    ///
    /// # Errors
    /// The fault that kept it from being written.
    fn persist(&self, wanted: Role) -> Result<(), Fault>;
}

impl Intent for ControlFile {
    fn persist(&self, wanted: Role) -> Result<(), Fault> {
        self.set_wanted(wanted).map_err(|error| error.fault())
    }
}

/// How a running part says that it ended by itself; belongs to one life of one part.
#[derive(Debug, Clone)]
pub struct Exits {
    part: Part,
    life: u64,
    to: mpsc::Sender<Exit>,
}

#[derive(Debug)]
struct Exit {
    part: Part,
    life: u64,
    fault: Fault,
}

impl Exits {
    /// Reports that the part has ended and why. Nothing happens if it was stopped in the meantime.
    pub async fn report(self, fault: Fault) {
        let exit = Exit { part: self.part, life: self.life, fault };
        if self.to.send(exit).await.is_err() {
            tracing::debug!(part = %self.part, "part ended after the supervisor");
        }
    }
}

/// Why a role was not adopted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SwitchError {
    /// The role machine refuses it.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// It could not be written, so nothing changed.
    #[error("write the wanted role: {0}")]
    NotPersisted(Fault),
    /// Too many presses at once.
    #[error("other role changes are waiting; ask again in a moment")]
    Busy,
    /// The storage takes too long; the status tells whether it was adopted after all.
    #[error("the storage takes too long to write the wanted role")]
    Late,
    /// The supervisor is gone.
    #[error("mfpsyncd is stopping; ask again when it runs")]
    Stopped,
}

#[derive(Debug)]
enum Command {
    Switch { role: Role, reply: oneshot::Sender<Result<RoleState, SwitchError>> },
    Restart { part: Part, reply: oneshot::Sender<Result<RoleState, SwitchError>> },
    Ping { reply: oneshot::Sender<()> },
}

/// Reaches the supervisor; cheap to clone.
#[derive(Debug, Clone)]
pub struct SupervisorHandle {
    commands: mpsc::Sender<Command>,
    state: watch::Receiver<RoleState>,
    shutdown: CancellationToken,
    stuck: CancellationToken,
}

impl SupervisorHandle {
    /// Asks for a role; answered when the decision is durable, while the change is still under way.
    ///
    /// # Errors
    /// Why nothing changed; [`SwitchError::Late`] alone leaves that open.
    ///
    /// # Cancel safety
    /// The role may be adopted all the same.
    pub async fn switch(&self, role: Role) -> Result<RoleState, SwitchError> {
        self.ask(|reply| Command::Switch { role, reply }).await
    }

    /// Has a part of the role end and begin anew; answered when it is on its way out.
    ///
    /// # Errors
    /// Another part is on its way, the role has no such part, or the supervisor is busy or gone: nothing happens.
    ///
    /// # Cancel safety
    /// It may begin anew all the same.
    pub async fn restart(&self, part: Part) -> Result<RoleState, SwitchError> {
        self.ask(|reply| Command::Restart { part, reply }).await
    }

    async fn ask(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<RoleState, SwitchError>>) -> Command,
    ) -> Result<RoleState, SwitchError> {
        let (reply, answer) = oneshot::channel();
        self.commands.try_send(command(reply)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => SwitchError::Busy,
            mpsc::error::TrySendError::Closed(_) => SwitchError::Stopped,
        })?;
        match timeout(SWITCH_LIMIT, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(SwitchError::Stopped),
            Err(_) => Err(SwitchError::Late),
        }
    }

    /// Returns when the supervisor has answered, and whether it could; for the watchdog, which
    /// bounds the wait.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn is_alive(&self) -> bool {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Ping { reply }).await.is_ok() && answer.await.is_ok()
    }

    /// Returns when a part did not stop in time. Nothing may be started beside it, so the process
    /// has to end; the next one resumes from what is written.
    pub async fn stuck(&self) {
        self.stuck.cancelled().await;
    }

    /// Follows the state.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<RoleState> {
        self.state.clone()
    }

    /// Stops every part, last started first, and waits until none runs. The caller bounds the wait.
    ///
    /// # Cancel safety
    /// The stop goes on; calling again goes on waiting.
    pub async fn shutdown(&self) {
        self.shutdown.cancel();
        let mut state = self.state.clone();
        // An error means that the supervisor is gone, and the parts with it.
        let _ = state.wait_for(|state| *state == RoleState::Off).await;
        self.commands.closed().await;
    }
}

/// What a supervisor works with.
pub struct Setup<P, I> {
    /// What is started and stopped.
    pub parts: Arc<P>,
    /// Where the wanted role is written.
    pub intent: Arc<I>,
    /// Where faults are shown.
    pub faults: FaultBoard,
    /// What is counted.
    pub stats: Arc<Stats>,
    /// Longest pause between two starts of a part that does not come up; asked each time.
    pub retry_max: Box<dyn Fn() -> Duration + Send + Sync>,
}

impl<P, I> std::fmt::Debug for Setup<P, I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Setup").finish_non_exhaustive()
    }
}

/// Starts the supervisor with the role that was wanted last.
pub fn spawn<P: Parts, I: Intent>(setup: Setup<P, I>, boot: Role, tasks: &Tasks) -> SupervisorHandle {
    let (to_commands, commands) = mpsc::channel(COMMANDS);
    let (to_exits, exits) = mpsc::channel(EXITS);
    let publish = watch::Sender::new(RoleState::Off);
    let handle = SupervisorHandle {
        commands: to_commands,
        state: publish.subscribe(),
        shutdown: tasks.token().child_token(),
        stuck: CancellationToken::new(),
    };
    let supervisor = Supervisor {
        setup,
        state: RoleState::Off,
        publish,
        to_exits,
        lives: Lives::default(),
        action: None,
        start_stop: CancellationToken::new(),
        retry_at: None,
        attempts: 0,
        shown: None,
        unwritten: false,
        stuck: handle.stuck.clone(),
    };
    tasks.spawn("supervisor", supervisor.run(boot, commands, exits, handle.shutdown.clone()));
    handle
}

type Action = Pin<Box<dyn Future<Output = Done> + Send>>;

/// How the one action under way ended.
enum Done {
    Started(Result<(), Fault>),
    Stopped,
    Stuck(Part),
}

/// Which life of each part counts; zero while it is not to run.
#[derive(Debug, Default)]
struct Lives {
    last: u64,
    current: [u64; Part::ALL.len()],
}

impl Lives {
    fn begin(&mut self, part: Part) -> u64 {
        self.last += 1;
        self.current[part as usize] = self.last;
        self.last
    }

    fn end(&mut self, part: Part) {
        self.current[part as usize] = 0;
    }

    fn is_current(&self, part: Part, life: u64) -> bool {
        self.current[part as usize] == life
    }
}

struct Supervisor<P, I> {
    setup: Setup<P, I>,
    state: RoleState,
    publish: watch::Sender<RoleState>,
    to_exits: mpsc::Sender<Exit>,
    lives: Lives,
    /// The start or stop under way; the machine asks for one at a time.
    action: Option<Action>,
    /// Ends the start under way.
    start_stop: CancellationToken,
    retry_at: Option<Instant>,
    attempts: u32,
    /// The fault on the board that comes from here.
    shown: Option<FaultCode>,
    /// The durable role is one this build does not run, and was left as it is.
    unwritten: bool,
    stuck: CancellationToken,
}

/// What woke the supervisor.
enum Wake {
    Shutdown,
    Done(Done),
    Exit(Exit),
    Command(Command),
    Retry,
}

impl<P: Parts, I: Intent> Supervisor<P, I> {
    async fn run(
        mut self,
        boot: Role,
        mut commands: mpsc::Receiver<Command>,
        mut exits: mpsc::Receiver<Exit>,
        shutdown: CancellationToken,
    ) {
        self.boot(boot);
        let mut closing = false;
        while !(closing && self.state == RoleState::Off) {
            // A finished start comes before an exit of the same part, and both before new wishes.
            let wake = tokio::select! {
                biased;
                () = shutdown.cancelled(), if !closing => Wake::Shutdown,
                done = finished(&mut self.action) => Wake::Done(done),
                Some(exit) = exits.recv() => Wake::Exit(exit),
                Some(command) = commands.recv() => Wake::Command(command),
                () = due(self.retry_at) => Wake::Retry,
            };
            closing |= matches!(wake, Wake::Shutdown);
            if self.wake(wake).await.is_break() {
                return;
            }
        }
    }

    fn boot(&mut self, role: Role) {
        match step(&self.state, RoleEvent::Boot(role)) {
            Ok(next) => self.adopt(next),
            Err(rejected) => {
                // Local data is served all the same, and what is written stays for the release that
                // wrote it until the operator chooses again.
                self.setup.faults.set(Fault::with_detail(FaultCode::ControlFile, rejected));
                self.unwritten = true;
                self.event(RoleEvent::Boot(Role::Idle));
            }
        }
    }

    async fn wake(&mut self, wake: Wake) -> ControlFlow<()> {
        match wake {
            Wake::Shutdown => self.event(RoleEvent::Shutdown),
            Wake::Done(Done::Started(Ok(()))) => self.event(RoleEvent::Started),
            Wake::Done(Done::Started(Err(fault))) => {
                self.setup.stats.part_start_failures.increment();
                self.event(RoleEvent::StartFailed(fault));
            }
            Wake::Done(Done::Stopped) => self.event(RoleEvent::Stopped),
            Wake::Done(Done::Stuck(part)) => {
                tracing::error!(%part, "part did not stop in time, the process has to end");
                self.stuck.cancel();
                return ControlFlow::Break(());
            }
            Wake::Exit(exit) if self.lives.is_current(exit.part, exit.life) => {
                tracing::warn!(part = %exit.part, code = %exit.fault.code, "part ended by itself");
                self.setup.stats.part_exits.increment();
                self.lives.end(exit.part);
                self.event(RoleEvent::Exited(exit.part, exit.fault));
            }
            Wake::Exit(late) => tracing::debug!(part = %late.part, "exit of an earlier life ignored"),
            Wake::Command(Command::Switch { role, reply }) => {
                // Nobody waits for the answer any more: the state is published all the same.
                let _ = reply.send(self.switch(role).await);
            }
            Wake::Command(Command::Restart { part, reply }) => {
                let restarted = step(&self.state, RoleEvent::Restart(part)).map(|next| self.adopt(next));
                let _ = reply.send(restarted.map(|()| self.state.clone()).map_err(SwitchError::from));
            }
            Wake::Command(Command::Ping { reply }) => {
                let _ = reply.send(());
            }
            Wake::Retry => {
                self.setup.stats.part_retries.increment();
                self.event(RoleEvent::RetryDue);
            }
        }
        ControlFlow::Continue(())
    }

    async fn switch(&mut self, role: Role) -> Result<RoleState, SwitchError> {
        let (state, mut effects) = step(&self.state, RoleEvent::SwitchTo(role))?;
        if self.unwritten && !effects.contains(&RoleEffect::Persist(role)) {
            effects.insert(0, RoleEffect::Persist(role));
        }
        if effects.first() == Some(&RoleEffect::Persist(role)) {
            self.persist(role).await.map_err(SwitchError::NotPersisted)?;
            tracing::info!(%role, "role wanted");
            self.setup.stats.role_switches.increment();
        }
        self.adopt((state, effects));
        Ok(self.state.clone())
    }

    /// Waits as long as the storage takes: a write that is given up might still happen, and then the
    /// file and this task would disagree.
    async fn persist(&mut self, role: Role) -> Result<(), Fault> {
        let intent = Arc::clone(&self.setup.intent);
        match tokio::task::spawn_blocking(move || intent.persist(role)).await {
            Ok(written) => written?,
            Err(error) => return Err(Fault::with_detail(FaultCode::ControlFile, error)),
        }
        if std::mem::take(&mut self.unwritten) {
            self.setup.faults.clear(FaultCode::ControlFile);
        }
        Ok(())
    }

    fn event(&mut self, event: RoleEvent) {
        match step(&self.state, event) {
            Ok(next) => self.adopt(next),
            Err(rejected) => tracing::error!(%rejected, "role event ignored"),
        }
    }

    fn adopt(&mut self, (state, effects): (RoleState, Vec<RoleEffect>)) {
        if state != self.state {
            tracing::info!(
                role = %state.wanted(),
                running = %state.running_role(),
                phase = ?state.phase(),
                "role state"
            );
            self.retry_at = None;
            self.state = state;
            self.show();
            self.publish.send_replace(self.state.clone());
        }
        for effect in effects {
            match effect {
                // Written before the state was adopted.
                RoleEffect::Persist(_) => {}
                RoleEffect::Start(part) => self.start(part),
                RoleEffect::Stop(part) => self.stop(part),
                RoleEffect::ScheduleRetry => {
                    let delay = retry_delay(self.attempts, (self.setup.retry_max)(), random_byte());
                    self.attempts = self.attempts.saturating_add(1);
                    self.retry_at = Some(Instant::now() + delay);
                }
            }
        }
    }

    /// Shows the fault of a faulted state until every part of the role runs.
    fn show(&mut self) {
        let now = match &self.state {
            RoleState::Faulted { fault, .. } => {
                self.setup.faults.set(fault.clone());
                Some(fault.code)
            }
            RoleState::Running(_) => {
                self.attempts = 0;
                None
            }
            RoleState::Off
            | RoleState::Starting { .. }
            | RoleState::Stopping { .. }
            | RoleState::Closing { .. } => return,
        };
        if let Some(before) = std::mem::replace(&mut self.shown, now)
            && now != Some(before)
        {
            self.setup.faults.clear(before);
        }
    }

    fn start(&mut self, part: Part) {
        let parts = Arc::clone(&self.setup.parts);
        let stop = CancellationToken::new();
        self.start_stop = stop.clone();
        let exits = Exits { part, life: self.lives.begin(part), to: self.to_exits.clone() };
        self.action = Some(Box::pin(async move {
            match timeout(START_LIMIT, parts.start(part, stop, exits)).await {
                Ok(started) => Done::Started(started),
                Err(_) => match stop_part(&*parts, part).await {
                    Done::Stopped => Done::Started(Err(Fault::with_detail(
                        FaultCode::DiskIo,
                        format_args!("the {part} did not start within {} s", START_LIMIT.as_secs()),
                    ))),
                    stuck => stuck,
                },
            }
        }));
    }

    fn stop(&mut self, part: Part) {
        let parts = Arc::clone(&self.setup.parts);
        self.lives.end(part);
        self.start_stop.cancel();
        let start = self.action.take();
        self.action = Some(Box::pin(async move {
            if let Some(start) = start {
                // However it ends: what is up is stopped next, and what is not is dropped here.
                let _ = timeout(DRAIN, start).await;
            }
            stop_part(&*parts, part).await
        }));
    }
}

async fn stop_part<P: Parts>(parts: &P, part: Part) -> Done {
    match timeout(ABORT + STOP_MARGIN, parts.stop(part)).await {
        Ok(()) => Done::Stopped,
        Err(_) => Done::Stuck(part),
    }
}

/// # Cancel safety
/// The action stays where it is until it has ended.
async fn finished(action: &mut Option<Action>) -> Done {
    match action {
        Some(under_way) => {
            let done = under_way.await;
            *action = None;
            done
        }
        None => pending().await,
    }
}

async fn due(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => pending().await,
    }
}

/// Doubles with each attempt up to `max`, then spread over its upper half.
fn retry_delay(attempts: u32, max: Duration, random: u8) -> Duration {
    let full = FIRST_RETRY.saturating_mul(1 << attempts.min(16)).min(max);
    full / 2 + full / 2 * u32::from(random) / u32::from(u8::MAX)
}

fn random_byte() -> u8 {
    let mut byte = [u8::MAX];
    // Without randomness the pause is the longest one; nothing but politeness depends on it.
    let _ = SystemRandom::new().fill(&mut byte);
    byte[0]
}

#[cfg(test)]
#[path = "supervisor_tests.rs"]
mod tests;
