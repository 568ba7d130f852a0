//! Whoever takes over, hands over, gives up a copy or hears of its end is killed: at each step by which something
//! changes for good, one by one, and at random. The step is made, or it never happened.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mfpsync_proto::panel::{
    PromoteRequest, ReleaseReplicaRequest, RetireServerRequest, Role, RolePhase, TransferRequest,
};
use mfpsync_tests::steps::Steps;
use mfpsync_tests::{PATIENCE, TestDevice, eventually, rounds, running, seed};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::timeout;

use super::{Office, REPLICA, SERVER};
use crate::refused::{copy_tree, replace_tree};

const ITEMS: u32 = 12;
/// How long an answer takes at the most.
const ANSWER: Duration = Duration::from_secs(1);

/// An office whose devices say what they meet when one of them is killed.
fn unsettled(mut office: Office) -> Office {
    for device in &mut office.devices {
        device.log.expect("F-SUPERSEDED");
        device.log.expect("another device reigns");
        device.log.expect("F-NOT-TAKEN-OVER");
        device.log.expect("take over from the server that hands over");
        // Killed right at its start, it has not yet checked what it had before.
        device.log.expect("the copy is not what was written");
    }
    office
}

/// Waits until one of server and replica serves and the other is its replica; which serves.
async fn serving(office: &Office) -> usize {
    let serving = eventually(PATIENCE, "one to serve and one to be the replica", async || {
        let mut roles = Vec::new();
        for device in [SERVER, REPLICA] {
            let status = office.devices[device].status().await?;
            ensure!(status.phase() == RolePhase::Running, "{status:?}");
            roles.push(status.running());
        }
        match roles[..] {
            [Role::ServerClient, Role::ReplicaClient] => Ok(SERVER),
            [Role::ReplicaClient, Role::ServerClient] => Ok(REPLICA),
            _ => anyhow::bail!("{roles:?}"),
        }
    });
    serving.await.unwrap()
}

/// Whether a device runs in a role; not while it starts, or stands still.
async fn runs(office: &Office, device: usize, role: Role) -> Result<bool> {
    let Ok(status) = office.devices[device].status().await else { return Ok(false) };
    Ok(status.running() == role && status.phase() == RolePhase::Running)
}

/// A server and its replica, over and over again as they were when the replica had everything; the steps of one count.
struct Staged {
    office: Office,
    counted: usize,
    steps: Steps,
    disks: Vec<PathBuf>,
}

impl Staged {
    async fn of(counted: usize) -> Self {
        let mut devices: Vec<_> =
            (0..2).map(|number| TestDevice::new(&format!("device-{number}")).unwrap()).collect();
        let steps = Steps::of_device(&mut devices[counted], "sync rename remove").unwrap();
        let mut office = unsettled(Office::of(devices).await);
        office.write(SERVER, 0..ITEMS).await;
        office.sent(SERVER).await;
        office.agree(SERVER, &[SERVER, REPLICA], ITEMS as usize).await;
        office.copied(SERVER, REPLICA).await;
        let mut disks = Vec::new();
        for device in [REPLICA, SERVER] {
            office.devices[device].stop().await.unwrap();
        }
        for device in &office.devices {
            let disk = device.home().join("disk");
            copy_tree(&device.data_dir(), &disk);
            disks.push(disk);
        }
        Self { office, counted, steps, disks }
    }

    /// Puts a device's disk back, which does not run after it.
    fn put_back(&mut self, device: usize) {
        let running = &mut self.office.devices[device];
        if running.exited().is_ok_and(|ended| ended.is_none()) {
            running.kill().unwrap();
        }
        replace_tree(&self.disks[device], &running.data_dir());
    }

    /// Both as they were; so many of them run.
    async fn again(&mut self, run: &[usize]) {
        for device in [SERVER, REPLICA] {
            self.put_back(device);
        }
        for device in run {
            self.office.devices[*device].start().await.unwrap();
        }
        running(&self.office.devices[REPLICA], Role::ReplicaClient).await.unwrap();
        if run.contains(&SERVER) {
            self.office.copied(SERVER, REPLICA).await;
            return;
        }
        eventually(PATIENCE, "the copy to be read", async || {
            let copy = self.office.devices[REPLICA].status().await?.copy.context("no copy")?;
            ensure!(copy.position.is_some(), "{copy:?}");
            Ok(())
        })
        .await
        .unwrap();
    }

    /// Waits until the step of that number is held, and returns it; none if all was done before.
    async fn held_or(&self, number: usize, done: impl AsyncFn(&Office) -> Result<bool>) -> Option<String> {
        let held = eventually(PATIENCE, "a step to be held, or the end", async || {
            if self.steps.is_held() {
                return Ok(true);
            }
            // In this order: what is held is not done, and may not answer.
            let done = timeout(ANSWER, done(&self.office)).await;
            ensure!(self.steps.is_held() || done??, "{:?}", self.steps.seen());
            Ok(self.steps.is_held())
        });
        held.await.unwrap().then(|| self.steps.seen().unwrap().swap_remove(number))
    }

    /// Kills the device whose step is held, and starts it again.
    async fn kill(&mut self) {
        let device = &mut self.office.devices[self.counted];
        device.kill().unwrap();
        self.steps.go_on().unwrap();
        device.start().await.unwrap();
    }
}

/// I-10. The server is lost.
#[tokio::test]
async fn i_10_a_takeover_killed_at_each_step_is_finished_or_never_began() {
    let mut staged = Staged::of(REPLICA).await;
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for number in 0.. {
        staged.again(&[REPLICA]).await;
        staged.steps.count(Some(number)).unwrap();
        let mut panel = staged.office.devices[REPLICA].panel().unwrap();
        let request = PromoteRequest { server_is_lost: true, ..PromoteRequest::default() };
        let promoting = tokio::spawn(async move { panel.promote(request).await.map(drop) });
        let Some(step) =
            staged.held_or(number, async |office| runs(office, REPLICA, Role::ServerClient).await).await
        else {
            break;
        };
        staged.kill().await;
        promoting.abort();
        let office = &staged.office;
        let began = eventually(PATIENCE, "the replica to run again", async || {
            let status = office.devices[REPLICA].status().await?;
            ensure!(status.phase() == RolePhase::Running, "{status:?}");
            Ok(status.wanted() == Role::ServerClient)
        });
        if began.await.unwrap() {
            after.push(step);
        } else {
            before.push(step);
            // What never began can be begun.
            eventually(PATIENCE, "the copy to be read", async || {
                Ok(office.promote(REPLICA, true).await.map(drop)?)
            })
            .await
            .unwrap();
        }
        running(&office.devices[REPLICA], Role::ServerClient).await.unwrap();
        office.agree(REPLICA, &[REPLICA], ITEMS as usize).await;
        assert_eq!(office.devices[REPLICA].status().await.unwrap().group.unwrap().epoch, 2);
    }
    assert!(before.iter().any(|step| step == "rename control"), "{before:?}");
    assert!(after.iter().any(|step| step == "rename master.db"), "{after:?}");
}

/// I-10, I-13. The server is there, and one end of the handover is killed.
async fn a_handover_with_one_end_killed_at_each_step(counted: usize) {
    let mut staged = Staged::of(counted).await;
    let mut seen = Vec::new();
    for number in 0.. {
        staged.again(&[SERVER, REPLICA]).await;
        staged.steps.count(Some(number)).unwrap();
        let mut panel = staged.office.devices[SERVER].panel().unwrap();
        let handing = tokio::spawn(async move {
            // It comes to nothing where the replica does not get everything in time; an operator tries again.
            while panel.transfer(TransferRequest {}).await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        // The old server becomes the replica last of all.
        let Some(step) =
            staged.held_or(number, async |office| runs(office, SERVER, Role::ReplicaClient).await).await
        else {
            break;
        };
        staged.kill().await;
        handing.abort();
        let office = &staged.office;
        let serving = serving(office).await;
        let epoch = office.devices[serving].status().await.unwrap().group.unwrap().epoch;
        assert_eq!(epoch, if serving == REPLICA { 2 } else { 1 }, "{step}");
        office.agree(serving, &[SERVER, REPLICA], ITEMS as usize).await;
        seen.push((step, serving == REPLICA));
    }
    assert!(seen.iter().any(|(_, moved)| *moved), "{seen:?}");
}

#[tokio::test]
async fn i_10_a_handover_whose_replica_is_killed_at_each_step_leaves_one_server_and_one_replica() {
    a_handover_with_one_end_killed_at_each_step(REPLICA).await;
}

#[tokio::test]
async fn i_10_a_handover_whose_server_is_killed_at_each_step_leaves_one_server_and_one_replica() {
    a_handover_with_one_end_killed_at_each_step(SERVER).await;
}

/// I-10.
#[tokio::test]
async fn i_10_a_release_killed_at_each_step_is_made_or_never_was() {
    let mut staged = Staged::of(REPLICA).await;
    let release = ReleaseReplicaRequest::default();
    let mut seen = Vec::new();
    for number in 0.. {
        staged.again(&[SERVER, REPLICA]).await;
        staged.steps.count(Some(number)).unwrap();
        let mut panel = staged.office.devices[REPLICA].panel().unwrap();
        let releasing = tokio::spawn(async move { panel.release_replica(release).await.map(drop) });
        let released = async |_: &Office| Ok(releasing.is_finished());
        let Some(step) = staged.held_or(number, released).await else { break };
        staged.kill().await;
        releasing.abort();
        let office = &staged.office;
        let made = eventually(PATIENCE, "the device to run again", async || {
            let status = office.devices[REPLICA].status().await?;
            ensure!(status.phase() == RolePhase::Running, "{status:?}");
            Ok(status.wanted() == Role::Client)
        });
        let made = made.await.unwrap();
        if !made {
            eventually(PATIENCE, "the replica to be released", async || {
                Ok(office.devices[REPLICA].panel()?.release_replica(release).await.map(drop)?)
            })
            .await
            .unwrap();
        }
        running(&office.devices[REPLICA], Role::Client).await.unwrap();
        eventually(PATIENCE, "the copy to be kept aside", async || {
            let data = office.devices[REPLICA].data_dir();
            ensure!(!data.join("standby").exists(), "it is there");
            ensure!(data.join("standby.released-1").exists(), "it is gone");
            Ok(())
        })
        .await
        .unwrap();
        office.agree(SERVER, &[SERVER, REPLICA], ITEMS as usize).await;
        seen.push((step, made));
    }
    println!("{seen:?}");
    assert!(seen.iter().any(|(_, made)| *made) && seen.iter().any(|(_, made)| !made), "{seen:?}");
}

/// I-10, I-14. A server comes back after another device took over.
#[tokio::test]
async fn i_10_a_server_killed_at_each_step_of_its_end_is_sealed_all_the_same() {
    let mut staged = Staged::of(SERVER).await;
    staged.again(&[REPLICA]).await;
    eventually(PATIENCE, "the copy to be read", async || {
        Ok(staged.office.promote(REPLICA, true).await.map(drop)?)
    })
    .await
    .unwrap();
    running(&staged.office.devices[REPLICA], Role::ServerClient).await.unwrap();
    let mut seen = Vec::new();
    for number in 0.. {
        staged.put_back(SERVER);
        staged.steps.count(Some(number)).unwrap();
        staged.office.devices[SERVER].spawn().unwrap();
        let Some(step) =
            staged.held_or(number, async |office| runs(office, SERVER, Role::Client).await).await
        else {
            break;
        };
        staged.kill().await;
        let office = &staged.office;
        running(&office.devices[SERVER], Role::Client).await.unwrap();
        office.devices[SERVER].fault("F-SUPERSEDED").await.unwrap();
        office.agree(REPLICA, &[SERVER, REPLICA], ITEMS as usize).await;
        assert_eq!(office.devices[REPLICA].status().await.unwrap().group.unwrap().epoch, 2);
        seen.push(step);
    }
    assert!(seen.iter().any(|step| step == "rename control"), "{seen:?}");
}

/// I-10.
#[tokio::test]
async fn i_10_a_takeover_killed_at_any_moment_is_finished_or_never_began() {
    let seed = seed();
    println!("seed {seed} (MFPSYNC_SEED={seed} replays its choices)");
    let (mut office, mut random) = (unsettled(Office::open(1).await), StdRng::seed_from_u64(seed));
    let (mut server, mut replica) = (SERVER, REPLICA);
    let mut items = 0;
    for _ in 0..rounds(12, 100) {
        office.write(2, items..items + 3).await;
        items += 3;
        office.sent(2).await;
        office.copied(server, replica).await;
        let lost = random.random_bool(0.5);
        if lost {
            office.devices[server].kill().unwrap();
        }
        let wait = Duration::from_millis(random.random_range(0..120));
        let promoting = office.promote(replica, lost);
        // Whoever asked may never hear the answer.
        let _answer = timeout(wait, promoting).await;
        office.devices[replica].kill().unwrap();
        office.devices[replica].start().await.unwrap();
        if lost {
            office.devices[server].start().await.unwrap();
        }
        let began = eventually(PATIENCE, "one of the two to serve", async || {
            let status = office.devices[replica].status().await?;
            ensure!(status.phase() == RolePhase::Running, "{status:?}");
            let serves = status.running() == Role::ServerClient;
            ensure!(serves || status.running() == Role::ReplicaClient, "{status:?}");
            Ok(serves)
        });
        if began.await.unwrap() {
            (server, replica) = (replica, server);
            office.agree(server, &[0, 1, 2], items as usize).await;
            if lost {
                // Somebody dismisses what it had, and makes it the replica.
                let mut panel = office.devices[replica].panel().unwrap();
                panel.retire_server(RetireServerRequest {}).await.unwrap();
                office.replicate(server, replica).await.unwrap();
            }
        }
        running(&office.devices[replica], Role::ReplicaClient).await.unwrap();
    }
    office.agree(server, &[0, 1, 2], items as usize).await;
}

/// I-10, I-13. The server's end, the replica's, or both are killed at random moments.
#[tokio::test]
async fn i_10_a_handover_with_either_end_killed_leaves_one_server_and_one_replica() {
    let seed = seed();
    println!("seed {seed} (MFPSYNC_SEED={seed} replays its choices)");
    let (mut office, mut random) = (unsettled(Office::open(1).await), StdRng::seed_from_u64(seed));
    let (mut server, mut replica, mut items, mut moved) = (SERVER, REPLICA, 0, 0);
    for _ in 0..rounds(12, 100) {
        office.write(2, items..items + 3).await;
        items += 3;
        office.sent(2).await;
        office.copied(server, replica).await;
        let mut panel = office.devices[server].panel().unwrap();
        let transfer = tokio::spawn(async move { panel.transfer(TransferRequest {}).await.map(drop) });
        tokio::time::sleep(Duration::from_millis(random.random_range(0..150))).await;
        let killed = match random.random_range(0..3) {
            0 => vec![server],
            1 => vec![replica],
            _ => vec![server, replica],
        };
        for device in &killed {
            office.devices[*device].kill().unwrap();
        }
        // Whoever asked may never hear the answer, or gives up.
        transfer.abort();
        for device in killed {
            office.devices[device].start().await.unwrap();
        }
        if serving(&office).await == replica {
            (server, replica, moved) = (replica, server, moved + 1);
        }
        office.agree(server, &[SERVER, REPLICA, 2], items as usize).await;
    }
    println!("{moved} handovers happened");
    office.copied(server, replica).await;
}
