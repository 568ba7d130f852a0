//! Disks that are full or read-only, and files that are damaged or from the future.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{bail, ensure};
use mfpsync_proto::local::Field;
use mfpsync_proto::panel::JoinPolicy;
use mfpsync_tests::item::{key, put, text};
use mfpsync_tests::read_only::ReadOnlySwitch;
use mfpsync_tests::volume::{Volume, may_mount};
use mfpsync_tests::{Fleet, PATIENCE, TestDevice, current, eventually, skip, start_server};
use tonic::Code;

/// Starts a daemon that must complain with a fault code: at the panel if it runs, else in its last
/// words. Returns the text.
async fn complains(device: &mut TestDevice, code: &str) -> String {
    device.log.expect(code);
    device.spawn().unwrap();
    // Taken apart because both need the device.
    for _ in 0..PATIENCE.as_secs() {
        if device.exited().unwrap().is_some() {
            let said = device.log.text();
            assert!(said.contains(code), "{said}");
            return said;
        }
        let shown =
            eventually(std::time::Duration::from_secs(1), code, async || device.fault(code).await).await;
        if let Ok(fault) = shown {
            return fault.text;
        }
    }
    panic!("no {code}:\n{}", device.log.text());
}

async fn end(device: &mut TestDevice) {
    if device.exited().is_ok_and(|status| status.is_none()) {
        device.stop().await.unwrap();
    }
}

/// The bytes of a file, wherever the daemon put it: it may rename a damaged file, never change it.
fn kept(path: &Path, bytes: &[u8]) -> bool {
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    let mut siblings = fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    siblings.any(|sibling| {
        sibling.file_name().unwrap().to_string_lossy().starts_with(&name)
            && fs::read(sibling).unwrap() == bytes
    })
}

async fn stopped_server() -> TestDevice {
    let mut device = TestDevice::started("server").await.unwrap();
    start_server(&device, "Office").await.unwrap();
    device.write(vec![put(key("shared", "shortcut", "s"), vec![text("value", "x")])]).await.unwrap();
    eventually(PATIENCE, "the edit to be accepted", async || {
        ensure!(device.client_status().await?.waiting == 0, "it waits");
        Ok(())
    })
    .await
    .unwrap();
    device.stop().await.unwrap();
    device
}

/// Damages a file of a stopped server, starts it, and expects a fault and an unchanged file.
async fn damaged(file: fn(&TestDevice) -> PathBuf, damage: fn(&mut Vec<u8>), code: &str) {
    let mut device = stopped_server().await;
    let path = file(&device);
    let mut bytes = fs::read(&path).unwrap();
    damage(&mut bytes);
    fs::write(&path, &bytes).unwrap();
    let text = complains(&mut device, code).await;
    assert!(!text.is_empty());
    end(&mut device).await;
    assert!(kept(&path, &bytes), "{} was changed", path.display());
}

fn overwrite_head(bytes: &mut [u8]) {
    bytes[..512].fill(0xa5);
}

fn cut_in_half(bytes: &mut Vec<u8>) {
    bytes.truncate(bytes.len() / 2);
}

/// The schema version in the header. **Source**: SQLite file format, section 1.3.
fn from_the_future(bytes: &mut [u8]) {
    bytes[60..64].copy_from_slice(&9_999_u32.to_be_bytes());
}

#[tokio::test]
async fn a_damaged_own_database_is_a_fault_and_is_kept() {
    damaged(TestDevice::own_database, |bytes| overwrite_head(bytes), "F-DB-CORRUPT").await;
}

#[tokio::test]
async fn a_truncated_own_database_is_a_fault_and_is_kept() {
    damaged(TestDevice::own_database, cut_in_half, "F-DB-CORRUPT").await;
}

#[tokio::test]
async fn a_damaged_master_database_is_a_fault_and_is_kept() {
    damaged(TestDevice::master_database, |bytes| overwrite_head(bytes), "F-DB-CORRUPT").await;
}

#[tokio::test]
async fn a_truncated_master_database_is_a_fault_and_is_kept() {
    damaged(TestDevice::master_database, cut_in_half, "F-DB-CORRUPT").await;
}

#[tokio::test]
async fn an_own_database_of_a_newer_release_is_a_fault_and_untouched() {
    damaged(TestDevice::own_database, |bytes| from_the_future(bytes), "F-DB-NEWER").await;
}

#[tokio::test]
async fn a_master_database_of_a_newer_release_is_a_fault_and_untouched() {
    damaged(TestDevice::master_database, |bytes| from_the_future(bytes), "F-DB-NEWER").await;
}

#[tokio::test]
async fn a_damaged_control_file_is_a_fault_and_untouched() {
    let flip = |bytes: &mut Vec<u8>| *bytes.last_mut().unwrap() ^= 1;
    damaged(|device| device.data_dir().join("control"), flip, "F-CONTROL-FILE").await;
}

#[tokio::test]
async fn a_control_file_of_a_newer_release_is_a_fault_and_untouched() {
    damaged(|device| device.data_dir().join("control"), |bytes| bytes[4] = 99, "F-CONTROL-FILE").await;
}

fn large(number: usize) -> Vec<Field> {
    vec![text("value", &number.to_string().repeat(8_000))]
}

/// Writes until one is refused for want of room; returns how many were acknowledged.
async fn write_until_full(device: &TestDevice, prefix: &str) -> usize {
    for number in 0..500 {
        let item = key("shared", "shortcut", &format!("{prefix}{number:03}"));
        match device.try_write(vec![put(item, large(number))]).await {
            Ok(_) => {}
            Err(status) => {
                assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
                assert!(status.message().contains("full"), "{status}");
                assert!(status.message().contains("nothing of this request was stored"), "{status}");
                return number;
            }
        }
    }
    panic!("the disk never became full");
}

async fn fault_ends(device: &TestDevice, code: &str) {
    eventually(PATIENCE, "the fault to end", async || match device.fault(code).await {
        Ok(fault) => bail!("it stands: {}", fault.text),
        Err(_none) => Ok(()),
    })
    .await
    .unwrap();
}

fn full_disk_is_expected(device: &mut TestDevice) {
    for part in ["full", "F-DISK-FULL", "storage", "push", "write the communication log"] {
        device.log.expect(part);
    }
}

#[tokio::test]
async fn a_full_disk_at_a_client_refuses_new_edits_and_loses_none() {
    if !may_mount() {
        return skip("only root may mount the small disk this needs");
    }
    let mut fleet = Fleet::start(1).await.unwrap();
    let mut client = TestDevice::new("small").unwrap();
    full_disk_is_expected(&mut client);
    let disk = client.home().join("disk");
    let volume = Volume::mount(&disk, 24).unwrap();
    client.setup.data_dir = Some(disk.join("data"));
    fleet.add(client, JoinPolicy::Merge).await.unwrap();
    fleet.cut(1).await.unwrap();
    volume.fill().unwrap();
    let acknowledged = write_until_full(&fleet.clients[1], "full-").await;
    eventually(PATIENCE, "the fault", async || fleet.clients[1].fault("F-DISK-FULL").await).await.unwrap();
    assert_eq!(fleet.clients[1].contents(&["shared"]).await.unwrap().len(), acknowledged, "reads go on");
    // Changes from elsewhere do not fit either, and must not be taken for had.
    let elsewhere = key("shared", "shortcut", "elsewhere");
    fleet.server.write(vec![put(elsewhere.clone(), large(7))]).await.unwrap();
    fleet.relays[1].mend();
    fleet.clients[1].kill().unwrap();
    volume.empty().unwrap();
    fleet.clients[1].start().await.unwrap();
    let contents = fleet.converged(&["shared"], PATIENCE).await.unwrap();
    assert_eq!(contents.len(), acknowledged + 1);
    assert!(contents.item(&elsewhere).is_some());
    fault_ends(&fleet.clients[1], "F-DISK-FULL").await;
    drop(fleet);
    drop(volume);
}

#[tokio::test]
async fn a_full_disk_at_a_client_heals_without_a_restart() {
    if !may_mount() {
        return skip("only root may mount the small disk this needs");
    }
    let mut fleet = Fleet::start(0).await.unwrap();
    let mut client = TestDevice::new("small").unwrap();
    full_disk_is_expected(&mut client);
    let disk = client.home().join("disk");
    let volume = Volume::mount(&disk, 24).unwrap();
    client.setup.data_dir = Some(disk.join("data"));
    fleet.add(client, JoinPolicy::Merge).await.unwrap();
    volume.fill().unwrap();
    let acknowledged = write_until_full(&fleet.clients[0], "full-").await;
    volume.empty().unwrap();
    let item = key("shared", "shortcut", "afterwards");
    eventually(PATIENCE, "room for an edit", async || {
        fleet.clients[0].write(vec![put(item.clone(), vec![text("value", "x")])]).await
    })
    .await
    .unwrap();
    let contents = fleet.converged(&["shared"], PATIENCE).await.unwrap();
    assert_eq!(contents.len(), acknowledged + 1);
    fault_ends(&fleet.clients[0], "F-DISK-FULL").await;
    drop(fleet);
    drop(volume);
}

#[tokio::test]
async fn a_full_disk_at_the_server_keeps_edits_waiting_and_loses_none() {
    if !may_mount() {
        return skip("only root may mount the small disk this needs");
    }
    let mut server = TestDevice::new("server").unwrap();
    full_disk_is_expected(&mut server);
    let disk = server.home().join("disk");
    let volume = Volume::mount(&disk, 24).unwrap();
    server.setup.data_dir = Some(disk.join("data"));
    server.start().await.unwrap();
    start_server(&server, "Office").await.unwrap();
    let mut fleet = Fleet { server, clients: Vec::new(), relays: Vec::new() };
    fleet.add(TestDevice::new("client").unwrap(), JoinPolicy::Merge).await.unwrap();
    full_disk_is_expected(&mut fleet.clients[0]);
    volume.fill().unwrap();
    for number in 0..100 {
        let item = key("shared", "shortcut", &format!("s{number:03}"));
        fleet.clients[0].write(vec![put(item, large(number))]).await.unwrap();
    }
    eventually(PATIENCE, "the fault", async || fleet.server.fault("F-DISK-FULL").await).await.unwrap();
    let waiting = fleet.clients[0].client_status().await.unwrap().waiting;
    assert!(waiting > 0, "what the server could not store waits at the client");
    volume.empty().unwrap();
    let contents = fleet.converged(&["shared"], PATIENCE).await.unwrap();
    assert_eq!(contents.len(), 100);
    fault_ends(&fleet.server, "F-DISK-FULL").await;
    drop(fleet);
    drop(volume);
}

/// Writes until an edit is refused because the disk takes none, and returns how many were acknowledged.
async fn write_until_refused(device: &TestDevice, prefix: &str) -> usize {
    for number in 0..1_000 {
        let item = key("shared", "shortcut", &format!("{prefix}{number:03}"));
        if let Err(status) = device.try_write(vec![put(item, vec![text("value", "x")])]).await {
            assert!(status.message().contains("nothing of this request was stored"), "{status}");
            return number;
        }
    }
    panic!("every edit was taken");
}

fn read_only_is_expected(device: &mut TestDevice) {
    for part in ["read-only", "Read-only", "F-READ-ONLY", "F-DISK-IO", "storage", "push"] {
        device.log.expect(part);
    }
}

#[tokio::test]
async fn a_disk_that_becomes_read_only_under_a_client_refuses_edits_and_comes_back() {
    let mut fleet = Fleet::start(1).await.unwrap();
    let mut client = TestDevice::new("client-2").unwrap();
    read_only_is_expected(&mut client);
    let switch = ReadOnlySwitch::install(&mut client).unwrap();
    fleet.add(client, JoinPolicy::Merge).await.unwrap();
    let client = &fleet.clients[1];
    let before = key("shared", "shortcut", "before");
    client.write(vec![put(before.clone(), vec![text("value", "x")])]).await.unwrap();
    switch.set(true).unwrap();
    assert_eq!(write_until_refused(client, "refused-").await, 0);
    eventually(PATIENCE, "the fault", async || {
        write_until_refused(client, "refused-").await;
        client.fault("F-READ-ONLY").await
    })
    .await
    .unwrap();
    assert!(client.get(&before).await.unwrap().is_some(), "reads go on");
    // What the group edits meanwhile cannot be stored, and must not be taken for had.
    let meanwhile = key("shared", "shortcut", "meanwhile");
    fleet.server.write(vec![put(meanwhile.clone(), vec![text("value", "x")])]).await.unwrap();
    eventually(PATIENCE, "the client to fall behind", async || {
        ensure!(!client.login("nobody", Some(0)).await?.1.current, "it says that it has everything");
        Ok(())
    })
    .await
    .unwrap();
    switch.set(false).unwrap();
    let after = key("shared", "shortcut", "after");
    eventually(PATIENCE, "an edit to be taken", async || {
        client.write(vec![put(after.clone(), vec![text("value", "x")])]).await
    })
    .await
    .unwrap();
    let contents = fleet.converged(&["shared"], PATIENCE).await.unwrap();
    for item in [&before, &meanwhile, &after] {
        assert!(contents.item(item).is_some(), "{item:?}");
    }
    assert_eq!(contents.len(), 3, "what was refused is nowhere");
    fault_ends(client, "F-READ-ONLY").await;
    fault_ends(client, "F-DISK-IO").await;
}

#[tokio::test]
async fn a_disk_that_becomes_read_only_under_the_server_keeps_edits_waiting_and_comes_back() {
    let mut server = TestDevice::new("server").unwrap();
    read_only_is_expected(&mut server);
    let switch = ReadOnlySwitch::install(&mut server).unwrap();
    server.start().await.unwrap();
    start_server(&server, "Office").await.unwrap();
    let mut fleet = Fleet { server, clients: Vec::new(), relays: Vec::new() };
    for name in ["client-1", "client-2"] {
        let mut client = TestDevice::new(name).unwrap();
        read_only_is_expected(&mut client);
        fleet.add(client, JoinPolicy::Merge).await.unwrap();
    }
    switch.set(true).unwrap();
    let written = async |range: std::ops::Range<usize>| {
        for number in range {
            let item = key("shared", "shortcut", &format!("s{number:03}"));
            fleet.clients[number % 2].write(vec![put(item, vec![text("value", "x")])]).await.unwrap();
        }
    };
    written(0..20).await;
    eventually(PATIENCE, "the fault", async || fleet.server.fault("F-READ-ONLY").await).await.unwrap();
    let waiting = async |client: &TestDevice| client.client_status().await.unwrap().waiting;
    assert_eq!(waiting(&fleet.clients[0]).await + waiting(&fleet.clients[1]).await, 20);
    switch.set(false).unwrap();
    written(20..40).await;
    let contents = fleet.converged(&["shared"], PATIENCE).await.unwrap();
    assert_eq!(contents.len(), 40);
    fault_ends(&fleet.server, "F-READ-ONLY").await;
    fault_ends(&fleet.server, "F-DISK-IO").await;
}

#[tokio::test]
async fn a_read_only_disk_is_a_clear_fault_and_harms_nothing() {
    if !may_mount() {
        return skip("only root may mount the disk this needs");
    }
    let mut fleet = Fleet::start(0).await.unwrap();
    let mut client = TestDevice::new("read-only").unwrap();
    let disk = client.home().join("disk");
    let volume = Volume::mount(&disk, 24).unwrap();
    client.setup.data_dir = Some(disk.join("data"));
    fleet.add(client, JoinPolicy::Merge).await.unwrap();
    fleet.cut(0).await.unwrap();
    let item = key("shared", "shortcut", "s1");
    fleet.clients[0].write(vec![put(item.clone(), vec![text("value", "x")])]).await.unwrap();
    fleet.clients[0].stop().await.unwrap();
    volume.set_read_only(true).unwrap();
    let said = complains(&mut fleet.clients[0], "F-READ-ONLY").await;
    assert!(said.contains("read-only"), "{said}");
    end(&mut fleet.clients[0]).await;
    volume.set_read_only(false).unwrap();
    fleet.relays[0].mend();
    fleet.clients[0].start().await.unwrap();
    current(&fleet.clients[0]).await.unwrap();
    let contents = fleet.converged(&["shared"], PATIENCE).await.unwrap();
    assert_eq!(contents.text(&item, "value"), Some("x"));
    drop(fleet);
    drop(volume);
}

#[tokio::test]
async fn a_read_only_disk_at_the_server_keeps_clients_working_and_loses_nothing() {
    if !may_mount() {
        return skip("only root may mount the disk this needs");
    }
    let mut server = TestDevice::new("server").unwrap();
    let disk = server.home().join("disk");
    let volume = Volume::mount(&disk, 24).unwrap();
    server.setup.data_dir = Some(disk.join("data"));
    server.start().await.unwrap();
    start_server(&server, "Office").await.unwrap();
    let mut fleet = Fleet { server, clients: Vec::new(), relays: Vec::new() };
    fleet.add(TestDevice::new("client").unwrap(), JoinPolicy::Merge).await.unwrap();
    fleet.server.stop().await.unwrap();
    volume.set_read_only(true).unwrap();
    complains(&mut fleet.server, "F-READ-ONLY").await;
    let item = key("shared", "shortcut", "meanwhile");
    fleet.clients[0].write(vec![put(item.clone(), vec![text("value", "x")])]).await.unwrap();
    end(&mut fleet.server).await;
    volume.set_read_only(false).unwrap();
    fleet.server.start().await.unwrap();
    current(&fleet.clients[0]).await.unwrap();
    let contents = fleet.converged(&["shared"], PATIENCE).await.unwrap();
    assert_eq!(contents.text(&item, "value"), Some("x"));
    drop(fleet);
    drop(volume);
}
