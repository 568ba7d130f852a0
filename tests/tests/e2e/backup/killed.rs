//! Whoever takes part in an archive or a restore is killed: at each step by which something changes for good, one by
//! one, and at random.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{bail, ensure};
use mfpsync_proto::panel::Role;
use mfpsync_tests::power::Power;
use mfpsync_tests::steps::Steps;
use mfpsync_tests::{
    PATIENCE, ShareServer, TestDevice, command_path, current, eventually, rounds, running, seed,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value as Json;

use super::{Office, count, device, idle, listed, newest, ok, run, sound, written};
use crate::refused::{copy_tree, replace_tree};

/// Keeps the two newest archives.
const TWO: [&str; 9] =
    ["set", "--keep-newest", "2", "--keep-days", "0", "--keep-weeks", "0", "--keep-months", "0"];

/// Whether the step of the server's disk was made whose request was the daemon's last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    /// Nothing came of it.
    Lost,
    /// It was, and nobody heard of it.
    Made,
}

/// The archive that a device has on its way to the share.
fn pending(device: &TestDevice) -> Option<String> {
    let remembered = std::fs::read(device.data_dir().join("archives.json")).unwrap();
    let remembered: Json = serde_json::from_slice(&remembered).unwrap();
    remembered["pending"]["id"].as_str().map(str::to_owned)
}

/// What is done, and the ending of the name it is done to.
fn kind_of(step: &str) -> (&str, &str) {
    let (doing, name) = step.split_once(' ').unwrap();
    (doing, name.rsplit_once('.').map_or(name, |(_, ending)| ending))
}

/// The daemon is killed while the server is at a step of an archive that is made. Afterwards it goes on by itself.
async fn killed_at(office: &mut Office, folder: &Path, number: usize, expected: &str, last: Last) {
    let item = 100 + 2 * u32::try_from(number).unwrap() + u32::from(last == Last::Made);
    let before = newest(&office.fleet.server);
    // Of two that hold the same neither is the newer one.
    written(&office.fleet.server, item).await;
    let steps = office.share.steps().unwrap();
    steps.count(Some(number)).unwrap();
    run(&office.fleet.server, &["now", "--no-wait"]);
    let step = steps.held(number).await.unwrap();
    assert_eq!(kind_of(&step), kind_of(expected), "{number}");
    office.fleet.server.kill().unwrap();
    if last == Last::Lost {
        office.share.sessions().unwrap().iter().for_each(|session| session.signal(Signal::KILL));
    }
    steps.go_on().unwrap();
    eventually(PATIENCE, "the server to notice", async || {
        ensure!(office.share.sessions()?.is_empty(), "a session stays");
        Ok(())
    })
    .await
    .unwrap();
    assert!(sound(folder).contains(&before), "{step}, {last:?}: {before} is lost");
    let server = &mut office.fleet.server;
    server.start().await.unwrap();
    running(server, Role::ServerClient).await.unwrap();
    let pending = pending(server);
    if let Some(pending) = &pending {
        // Whatever is set has it look at what is to be done.
        ok(server, &TWO);
        eventually(PATIENCE, "the archive on its way to arrive", async || {
            let status = ok(server, &["status"]);
            ensure!(status["newest"]["id"] == **pending, "{step}, {last:?}: {status}");
            Ok(())
        })
        .await
        .unwrap();
        idle(server).await;
    }
    // One that was on its way arrived, and nothing else than whole ones is there for anybody.
    let there = sound(folder);
    assert!(there.contains(&newest(server)), "{step}, {last:?}");
    assert_eq!(listed(server), there, "{step}, {last:?}");
    assert_ne!(newest(server), before, "{step}, {last:?}");
    assert_eq!(pending.is_none(), step.starts_with("remove"), "{step}, {last:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn i_18_i_20_a_daemon_killed_at_each_step_of_an_archive_goes_on_and_none_is_bad_or_lost() {
    let share = ShareServer::default().stepwise().start().unwrap();
    let mut office = Office::at(share, device("server")).await;
    office.archived("backup", 0..40).await;
    let folder = office.folder("backup").await;
    ok(&office.fleet.server, &TWO);
    ok(&office.fleet.server, &["now"]);
    // The third is the one for which the first goes.
    office.share.steps().unwrap().count(None).unwrap();
    ok(&office.fleet.server, &["now"]);
    let steps = office.share.steps().unwrap().seen().unwrap();
    let mut kinds: Vec<_> = steps.iter().map(|step| kind_of(step)).collect();
    kinds.dedup();
    let of_one_file = |place| [("create", "part"), ("write", "part"), ("rename", place)];
    let removal = [("remove", "manifest"), ("remove", "archive")];
    assert_eq!(kinds, [&of_one_file("archive")[..], &of_one_file("manifest"), &removal].concat());
    for (number, step) in steps.iter().enumerate() {
        let lasts = match kind_of(step).0 {
            "rename" | "remove" => &[Last::Lost, Last::Made][..],
            _ => &[Last::Lost],
        };
        for &last in lasts {
            killed_at(&mut office, &folder, number, step, last).await;
        }
    }
    ok(&office.fleet.server, &["drill", "--key", &office.key()]);
    assert!(std::fs::read_dir(office.fleet.server.data_dir().join("spool")).unwrap().next().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_told_to_end_does_not_wait_for_a_share_and_goes_on_in_its_next_life() {
    let share = ShareServer::default().stepwise().start().unwrap();
    let mut office = Office::at(share, device("server")).await;
    office.fleet.server.log.expect("came to nothing");
    let first = office.archived("backup", 0..10).await;
    let folder = office.folder("backup").await;
    written(&office.fleet.server, 10).await;
    let steps = office.share.steps().unwrap();
    // The archive's bytes: the server never answers.
    steps.count(Some(1)).unwrap();
    run(&office.fleet.server, &["now", "--no-wait"]);
    assert_eq!(kind_of(&steps.held(1).await.unwrap()), ("write", "part"));
    office.fleet.server.stop().await.unwrap();
    let pending = pending(&office.fleet.server).unwrap();
    steps.go_on().unwrap();
    assert_eq!(sound(&folder), [first]);
    let server = &mut office.fleet.server;
    server.start().await.unwrap();
    running(server, Role::ServerClient).await.unwrap();
    ok(server, &TWO);
    eventually(PATIENCE, "the archive on its way to arrive", async || {
        ensure!(newest(server) == pending, "{pending}");
        Ok(())
    })
    .await
    .unwrap();
    idle(server).await;
    assert_eq!(sound(&folder), listed(server));
}

/// Restores the newest archive, whatever is lost.
fn restore(office: &Office, device: &TestDevice) -> Command {
    let mut command = Command::new(command_path().unwrap());
    command.arg("--run").arg(device.run_dir()).args(["--json", "backup", "restore", "--yes"]);
    command.args(["--accept-loss-of", "100000", "--key", &office.key()]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Waits until a restore is held at a step, and returns that; none when it was done before it came so far.
async fn held_or_done(steps: &Steps, number: usize, restoring: &mut Child) -> Option<String> {
    let held = eventually(PATIENCE, "the restore to end or to be held", async || {
        match (steps.is_held(), restoring.try_wait()?) {
            (true, _) => Ok(true),
            (false, Some(status)) if status.success() => Ok(false),
            (false, ended) => bail!("{ended:?}, {:?}", steps.seen()),
        }
    });
    held.await.unwrap().then(|| steps.seen().unwrap().swap_remove(number))
}

/// Starts the server after a restore that was cut off; whether that happened.
async fn happened(office: &mut Office, epoch: u64, items: usize) -> bool {
    let server = &mut office.fleet.server;
    server.start().await.unwrap();
    running(server, Role::ServerClient).await.unwrap();
    current(server).await.unwrap();
    let now = epoch_of(server).await;
    assert!(now == epoch || now == epoch + 1, "{epoch} became {now}");
    assert_eq!(count(server).await.unwrap(), items);
    for left in ["restored.db", "restored.db-wal", "restore-scratch"] {
        assert!(!server.data_dir().join(left).exists(), "{left}");
    }
    now > epoch
}

async fn epoch_of(device: &TestDevice) -> u64 {
    device.status().await.unwrap().group.unwrap().epoch
}

/// What befalls the server at each step of a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// It is killed: what it wrote stays.
    Kill,
    /// The power fails: what it synced stays.
    Power,
}

async fn a_restore_ended_at_each_step(end: End) {
    let mut server = device("server");
    let power = (end == End::Power).then(|| Power::install(&mut server).unwrap());
    // What is removed is of no use to anybody then: the steps between tell enough, but for a campaign.
    let of = if rounds(0, 1) == 0 { "sync rename" } else { "sync rename remove" };
    let steps = Steps::of_device(&mut server, of).unwrap();
    let mut office = Office::at(ShareServer::default().start().unwrap(), server).await;
    office.fleet.server.log.expect("came to nothing");
    office.archived("backup", 0..30).await;
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for number in 0.. {
        let epoch = epoch_of(&office.fleet.server).await;
        steps.count(Some(number)).unwrap();
        let mut restoring = restore(&office, &office.fleet.server).spawn().unwrap();
        let Some(step) = held_or_done(&steps, number, &mut restoring).await else {
            assert_eq!(epoch_of(&office.fleet.server).await, epoch + 1);
            break;
        };
        match &power {
            None => office.fleet.server.kill().unwrap(),
            Some(power) => power.cut(&mut office.fleet.server).unwrap(),
        }
        restoring.wait().unwrap();
        steps.go_on().unwrap();
        let happened = happened(&mut office, epoch, 30).await;
        if happened { &mut after } else { &mut before }.push(step);
    }
    // The decision is one rename; all that follows it is finished by the next start.
    assert!(before.iter().any(|step| step == "rename restored.db"), "{before:?}");
    for step in ["rename master.db", "rename master.db.retired-"] {
        assert!(after.iter().any(|seen| seen.starts_with(step)), "{step}: {after:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i_10_i_18_a_restore_killed_at_each_step_happened_or_did_not() {
    a_restore_ended_at_each_step(End::Kill).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i_10_i_18_a_restore_whose_power_fails_at_each_step_happened_or_did_not() {
    a_restore_ended_at_each_step(End::Power).await;
}

/// Its server is lost: a blank machine is killed at each step by which it becomes the server, by archive and kit.
#[tokio::test(flavor = "multi_thread")]
async fn i_10_i_17_a_blank_machine_killed_at_each_step_of_a_restore_serves_or_is_blank() {
    let (mut office, _) = Office::with_archive(0, 0..30).await;
    office.fleet.server.stop().await.unwrap();
    let [kit, passphrase] = office.kit_files();
    let mut new = device("new");
    new.log.expect("came to nothing");
    // Between its renames all the rest happens: they tell enough, but for a campaign.
    let of = if rounds(0, 1) == 0 { "rename" } else { "sync rename remove" };
    let steps = Steps::of_device(&mut new, of).unwrap();
    new.start().await.unwrap();
    office.set(&new);
    new.stop().await.unwrap();
    let blank = new.home().join("blank");
    copy_tree(&new.data_dir(), &blank);
    let by_kit = ["--kit", &*kit, "--kit-passphrase-file", &*passphrase];
    let restore = |new: &TestDevice| {
        let mut command = restore(&office, new);
        command.args(by_kit).spawn().unwrap()
    };
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for number in 0.. {
        replace_tree(&blank, &new.data_dir());
        new.start().await.unwrap();
        steps.count(Some(number)).unwrap();
        let mut restoring = restore(&new);
        let Some(step) = held_or_done(&steps, number, &mut restoring).await else { break };
        new.kill().unwrap();
        restoring.wait().unwrap();
        steps.go_on().unwrap();
        new.start().await.unwrap();
        if new.status().await.unwrap().wanted() == Role::Idle {
            eventually(PATIENCE, "what is left to be removed", async || {
                for left in ["restored.db", "restored.db-wal", "restore-scratch", "master.db"] {
                    ensure!(!new.data_dir().join(left).exists(), "{step}: {left}");
                }
                Ok(())
            })
            .await
            .unwrap();
            before.push(step);
        } else {
            serves_what_was_restored(&new).await;
            after.push(step);
        }
        new.stop().await.unwrap();
    }
    assert!(before.iter().any(|step| step == "rename restored.db"), "{before:?}");
    assert!(after.iter().any(|step| step == "rename master.db"), "{after:?}");
    // What was not begun can be begun again.
    serves_what_was_restored(&new).await;
}

async fn serves_what_was_restored(new: &TestDevice) {
    running(new, Role::Server).await.unwrap();
    let status = new.status().await.unwrap();
    let server = status.server.unwrap();
    assert_eq!(status.group.unwrap().epoch, 1_001);
    assert!(server.head.unwrap().sequence >= 30);
}

/// The helper programs that work for a device, whichever they are.
fn helpers(device: &TestDevice) -> Vec<Pid> {
    let works_there = |process: &Path| {
        std::fs::read_link(process.join("cwd")).is_ok_and(|place| place.starts_with(device.data_dir()))
            && std::fs::read_to_string(process.join("comm")).is_ok_and(|name| name.starts_with("mfpsync-"))
    };
    let processes = std::fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    let ids = processes
        .filter(|process| works_there(process))
        .filter_map(|process| Pid::from_raw(process.file_name()?.to_str()?.parse().ok()?));
    ids.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn i_18_i_20_whoever_is_killed_at_any_moment_no_archive_is_bad_and_none_is_lost() {
    let (mut office, _) = Office::with_archive(0, 0..40).await;
    office.fleet.server.log.expect("came to nothing");
    // More than half of them never go at once.
    office.fleet.server.log.expect("old archives were not removed");
    let folder = office.folder("backup").await;
    ok(&office.fleet.server, &TWO);
    let seed = seed();
    println!("seed {seed} (MFPSYNC_SEED={seed} replays its choices)");
    let mut luck = StdRng::seed_from_u64(seed);
    let mut known = sound(&folder);
    for round in 0..rounds(6, 200) {
        run(&office.fleet.server, &["now", "--no-wait"]);
        tokio::time::sleep(Duration::from_millis(luck.random_range(0..600))).await;
        match round % 3 {
            0 => {
                office.fleet.server.kill().unwrap();
                sound(&folder);
                office.fleet.server.start().await.unwrap();
                running(&office.fleet.server, Role::ServerClient).await.unwrap();
            }
            1 => helpers(&office.fleet.server)
                .into_iter()
                // Who has ended by itself meanwhile is as good.
                .for_each(|pid| {
                    let _ended = kill_process(pid, Signal::KILL);
                }),
            _ => office.share.sessions().unwrap().iter().for_each(|session| session.signal(Signal::KILL)),
        }
        let now = sound(&folder);
        // Two at the least, as was set; what went was older than what came.
        assert!(now.len() >= known.len().min(2), "{known:?} became {now:?}");
        known = now;
    }
    // Whatever was left on its way: the next one is good, and only good ones are listed.
    idle(&office.fleet.server).await;
    let made = ok(&office.fleet.server, &["now", "--accept-missing"]);
    let id = made["archive"]["id"].as_str().unwrap().to_owned();
    let there = sound(&folder);
    assert!(there.contains(&id), "{there:?}");
    assert_eq!(there, listed(&office.fleet.server));
    assert!(std::fs::read_dir(office.fleet.server.data_dir().join("spool")).unwrap().next().is_none());
    ok(&office.fleet.server, &["drill", "--key", &office.key()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn i_10_i_18_a_restore_cut_at_any_moment_happened_or_did_not() {
    let (mut office, _) = Office::with_archive(0, 0..30).await;
    office.fleet.server.log.expect("came to nothing");
    let [mut before, mut after] = [0, 0];
    let seed = seed();
    println!("seed {seed} (MFPSYNC_SEED={seed} replays its choices)");
    let mut luck = StdRng::seed_from_u64(seed);
    for _ in 0..rounds(3, 150) {
        let epoch = epoch_of(&office.fleet.server).await;
        let mut restoring = restore(&office, &office.fleet.server).spawn().unwrap();
        tokio::time::sleep(Duration::from_millis(luck.random_range(0..250))).await;
        office.fleet.server.kill().unwrap();
        restoring.wait().unwrap();
        *if happened(&mut office, epoch, 30).await { &mut after } else { &mut before } += 1;
    }
    eprintln!("{before} did not happen, {after} did");
    assert!(restore(&office, &office.fleet.server).status().unwrap().success());
}
