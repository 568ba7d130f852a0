//! The supervisor with parts that only keep a log, in virtual time.

use std::collections::BTreeMap;
use std::sync::Mutex;

use tokio::sync::Semaphore;

use super::*;

/// What a fake part does when it is started.
#[derive(Debug, Clone)]
enum Script {
    Run,
    Fail(FaultCode),
    /// Comes up only when asked to stop.
    WaitForStop,
    /// Never comes up and does not listen.
    Hang,
}

#[derive(Default)]
struct World {
    log: Mutex<Vec<String>>,
    scripts: Mutex<BTreeMap<Part, Vec<Script>>>,
    exits: Mutex<BTreeMap<Part, Exits>>,
    stop_gate: Option<Semaphore>,
    storage_is_full: Mutex<bool>,
}

impl World {
    fn note(&self, line: String) {
        self.log.lock().unwrap().push(line);
    }

    fn taken_log(&self) -> Vec<String> {
        std::mem::take(&mut self.log.lock().unwrap())
    }

    fn script(&self, part: Part, script: Script) {
        self.scripts.lock().unwrap().entry(part).or_default().insert(0, script);
    }

    fn exits_of(&self, part: Part) -> Exits {
        self.exits.lock().unwrap().get(&part).unwrap().clone()
    }
}

impl Parts for World {
    async fn start(&self, part: Part, stop: CancellationToken, exits: Exits) -> Result<(), Fault> {
        self.note(format!("start {part}"));
        let script = self.scripts.lock().unwrap().get_mut(&part).and_then(Vec::pop);
        self.exits.lock().unwrap().insert(part, exits);
        match script.unwrap_or(Script::Run) {
            Script::Run => Ok(()),
            Script::Fail(code) => Err(Fault::now(code)),
            Script::WaitForStop => {
                stop.cancelled().await;
                self.note(format!("{part} gave up"));
                Ok(())
            }
            Script::Hang => pending().await,
        }
    }

    async fn stop(&self, part: Part) {
        self.note(format!("stop {part}"));
        if let Some(gate) = &self.stop_gate {
            gate.acquire().await.unwrap().forget();
        }
        self.note(format!("stopped {part}"));
    }
}

impl Intent for World {
    fn persist(&self, wanted: Role) -> Result<(), Fault> {
        if *self.storage_is_full.lock().unwrap() {
            return Err(Fault::now(FaultCode::DiskFull));
        }
        self.note(format!("persist {wanted}"));
        Ok(())
    }
}

struct Bench {
    world: Arc<World>,
    handle: SupervisorHandle,
    faults: FaultBoard,
    stats: Arc<Stats>,
    tasks: Tasks,
}

fn bench_with(world: World, boot: Role) -> Bench {
    let world = Arc::new(world);
    let (faults, stats, tasks) = (FaultBoard::default(), Arc::new(Stats::default()), Tasks::default());
    let setup = Setup {
        parts: Arc::clone(&world),
        intent: Arc::clone(&world),
        faults: faults.clone(),
        stats: Arc::clone(&stats),
        retry_max: Box::new(|| Duration::from_secs(30)),
    };
    let handle = spawn(setup, boot, &tasks);
    Bench { world, handle, faults, stats, tasks }
}

fn bench(boot: Role) -> Bench {
    bench_with(World::default(), boot)
}

impl Bench {
    async fn until(&self, state: impl Fn(&RoleState) -> bool) -> RoleState {
        let mut watch = self.handle.watch();
        let reached = timeout(Duration::from_secs(600), watch.wait_for(state)).await;
        reached.expect("reached in time").expect("supervisor runs").clone()
    }

    async fn running(&self, role: Role) {
        self.until(|state| *state == RoleState::Running(role)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_boot_resumes_the_role_without_writing_it_again() {
    let bench = bench(Role::ServerClient);
    bench.running(Role::ServerClient).await;
    assert_eq!(bench.world.taken_log(), ["start server", "start client"]);
}

#[tokio::test(start_paused = true)]
async fn a_switch_is_written_first_and_touches_only_what_differs() {
    let bench = bench(Role::Server);
    bench.running(Role::Server).await;
    bench.world.taken_log();
    let answer = bench.handle.switch(Role::ServerClient).await.unwrap();
    assert_eq!(answer.wanted(), Role::ServerClient);
    bench.running(Role::ServerClient).await;
    assert_eq!(bench.world.taken_log(), ["persist server+client", "start client"]);
    bench.handle.switch(Role::Client).await.unwrap();
    bench.running(Role::Client).await;
    assert_eq!(bench.world.taken_log(), ["persist client", "stop server", "stopped server"]);
    bench.handle.switch(Role::Client).await.unwrap();
    assert_eq!(bench.world.taken_log(), Vec::<String>::new());
    assert_eq!(bench.stats.role_switches.get(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_stop_finishes_before_the_next_start_and_answers_at_once() {
    let world = World { stop_gate: Some(Semaphore::new(0)), ..World::default() };
    let bench = bench_with(world, Role::Client);
    bench.running(Role::Client).await;
    bench.world.taken_log();
    let answer = bench.handle.switch(Role::Server).await.unwrap();
    assert!(matches!(answer, RoleState::Stopping { .. }));
    let answer = bench.handle.switch(Role::Server).await.unwrap();
    assert!(matches!(answer, RoleState::Stopping { .. }));
    assert_eq!(bench.world.taken_log(), ["persist server", "stop client"]);
    bench.world.stop_gate.as_ref().unwrap().add_permits(1);
    bench.running(Role::Server).await;
    assert_eq!(bench.world.taken_log(), ["stopped client", "start server"]);
}

#[tokio::test(start_paused = true)]
async fn a_role_that_cannot_be_written_changes_nothing() {
    let bench = bench(Role::Client);
    bench.running(Role::Client).await;
    bench.world.taken_log();
    *bench.world.storage_is_full.lock().unwrap() = true;
    let Err(SwitchError::NotPersisted(fault)) = bench.handle.switch(Role::Idle).await else {
        panic!("not written")
    };
    assert_eq!(fault.code, FaultCode::DiskFull);
    assert_eq!(*bench.handle.watch().borrow(), RoleState::Running(Role::Client));
    assert_eq!(bench.world.taken_log(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_start_that_fails_is_tried_again_with_growing_pauses_and_shown_meanwhile() {
    let world = World::default();
    for _ in 0..5 {
        world.script(Part::Server, Script::Fail(FaultCode::Listen));
    }
    let began = Instant::now();
    let bench = bench_with(world, Role::Server);
    bench.until(|state| matches!(state, RoleState::Faulted { .. })).await;
    assert_eq!(bench.faults.snapshot()[0].code, FaultCode::Listen);
    bench.running(Role::Server).await;
    assert!(bench.faults.snapshot().is_empty());
    assert_eq!(bench.stats.part_retries.get(), 5);
    // 1 + 2 + 4 + 8 + 16 seconds, each at least half.
    assert!((15..=31).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_part_that_exits_comes_back_and_the_report_of_an_earlier_life_is_ignored() {
    let bench = bench(Role::ServerClient);
    bench.running(Role::ServerClient).await;
    let old = bench.world.exits_of(Part::Client);
    bench.world.taken_log();
    old.clone().report(Fault::now(FaultCode::Refused)).await;
    let state = bench.until(|state| matches!(state, RoleState::Faulted { .. })).await;
    assert_eq!(state.running_role(), Role::Server);
    bench.running(Role::ServerClient).await;
    assert_eq!(bench.world.taken_log(), ["start client"]);
    old.report(Fault::now(FaultCode::Refused)).await;
    assert!(bench.handle.is_alive().await);
    assert_eq!(*bench.handle.watch().borrow(), RoleState::Running(Role::ServerClient));
    assert_eq!(bench.stats.part_exits.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_fault_that_needs_a_person_waits_for_one() {
    let bench = bench(Role::Client);
    bench.running(Role::Client).await;
    bench.world.exits_of(Part::Client).report(Fault::now(FaultCode::Released)).await;
    bench.until(|state| matches!(state, RoleState::Faulted { .. })).await;
    tokio::time::advance(Duration::from_secs(3_600)).await;
    assert!(bench.handle.is_alive().await);
    assert!(matches!(*bench.handle.watch().borrow(), RoleState::Faulted { .. }));
    bench.handle.switch(Role::Client).await.unwrap();
    bench.running(Role::Client).await;
    assert!(bench.faults.snapshot().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_start_under_way_is_ended_by_another_wish() {
    let world = World::default();
    world.script(Part::Client, Script::WaitForStop);
    let bench = bench_with(world, Role::Client);
    bench.until(|state| matches!(state, RoleState::Starting { .. })).await;
    bench.handle.switch(Role::Server).await.unwrap();
    bench.running(Role::Server).await;
    assert_eq!(
        bench.world.taken_log(),
        ["start client", "persist server", "client gave up", "stop client", "stopped client", "start server"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_start_that_hangs_is_given_up_after_its_limit() {
    let world = World::default();
    world.script(Part::Server, Script::Hang);
    let bench = bench_with(world, Role::Server);
    let state = bench.until(|state| matches!(state, RoleState::Faulted { .. })).await;
    let RoleState::Faulted { fault, .. } = state else { panic!("faulted") };
    assert!(fault.text.contains("did not start within 120 s"), "{fault}");
    bench.running(Role::Server).await;
}

#[tokio::test(start_paused = true)]
async fn a_part_that_does_not_stop_ends_the_process_instead_of_being_overtaken() {
    let world = World { stop_gate: Some(Semaphore::new(0)), ..World::default() };
    let bench = bench_with(world, Role::Client);
    bench.running(Role::Client).await;
    bench.handle.switch(Role::Server).await.unwrap();
    bench.handle.stuck().await;
    assert!(!bench.world.taken_log().contains(&"start server".to_owned()));
    assert_eq!(bench.handle.switch(Role::Idle).await, Err(SwitchError::Stopped));
    assert!(!bench.handle.is_alive().await);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_stops_the_client_before_the_server_and_keeps_the_wanted_role() {
    let bench = bench(Role::ServerClient);
    bench.running(Role::ServerClient).await;
    bench.world.taken_log();
    bench.handle.shutdown().await;
    assert_eq!(bench.world.taken_log(), ["stop client", "stopped client", "stop server", "stopped server"]);
    assert_eq!(bench.handle.switch(Role::Idle).await, Err(SwitchError::Stopped));
    assert!(bench.tasks.stop(Duration::from_secs(1)).await.is_empty());
}

#[test]
fn pauses_double_up_to_their_limit_and_keep_at_least_half() {
    let max = Duration::from_secs(30);
    for (attempts, full) in [(0, 1), (1, 2), (4, 16), (5, 30), (u32::MAX, 30)] {
        assert_eq!(retry_delay(attempts, max, u8::MAX), Duration::from_secs(full));
        assert_eq!(retry_delay(attempts, max, 0), Duration::from_secs(full) / 2);
    }
}
