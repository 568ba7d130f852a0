//! Devices that leave or are released, dead ones too, and come back: with edits the group never got,
//! which wait for a person's word, and without what merely grew old meanwhile.

use std::process::{Command, Output};

use anyhow::{Result, ensure};
use mfpsync_proto::panel::{
    AcceptJoinRequest, CancelJoinRequest, DevicesRequest, JoinFate, JoinPhase, JoinPlanReply,
    JoinPlanRequest, JoinPolicies, JoinPolicy, JoinReply, JoinRequest, LeaveRequest, ReleaseDeviceRequest,
    Role, UndoJoinRequest,
};
use mfpsync_proto::records::{UnsentChange, UnsentItem, UnsentRequest, UserRequest};
use mfpsync_tests::item::{delete, key, patch, put, text};
use mfpsync_tests::{
    Contents, Fleet, PATIENCE, TestDevice, command_path, current, eventually, open_pairing, running,
};

const SCOPES: [&str; 2] = ["shared", "user/alice"];

/// The operator's command at a device.
fn command(device: &TestDevice, arguments: &[&str]) -> Output {
    let mut command = Command::new(command_path().unwrap());
    command.arg("--run").arg(device.run_dir()).args(arguments).output().unwrap()
}

async fn unsent(device: &TestDevice, with_values: bool) -> Result<Vec<UnsentItem>> {
    let mut batches = device.records()?.unsent(UnsentRequest { with_values }).await?.into_inner();
    let mut items = Vec::new();
    while let Some(batch) = batches.message().await? {
        items.extend(batch.items);
    }
    Ok(items)
}

fn ids(items: &[UnsentItem]) -> Vec<(String, UnsentChange)> {
    items.iter().map(|item| (item.key.clone().unwrap().id, item.change())).collect()
}

async fn faulted(device: &TestDevice) -> String {
    eventually(PATIENCE, "the device to learn of its release", async || {
        Ok(device.fault("F-RELEASED").await?.text)
    })
    .await
    .unwrap()
}

async fn release(fleet: &mut Fleet, client: usize) {
    for surprise in ["refused", "F-RELEASED", "released"] {
        fleet.server.log.expect(surprise);
        fleet.clients[client].log.expect(surprise);
    }
    let device_id = fleet.clients[client].status().await.unwrap().device_id;
    let request = ReleaseDeviceRequest { device_id };
    fleet.server.panel().unwrap().release_device(request).await.unwrap();
}

/// Pairs anew, with the wish to merge at once.
async fn come_back(fleet: &Fleet, device: &TestDevice, address: &str) -> JoinReply {
    let request = JoinRequest {
        address: address.to_owned(),
        code: open_pairing(&fleet.server).await.unwrap().code,
        policies: Some(JoinPolicies { others: JoinPolicy::Merge.into(), ..JoinPolicies::default() }),
        review: false,
    };
    device.panel().unwrap().join(request).await.unwrap().into_inner()
}

async fn planned(device: &TestDevice, unsent_only: bool) -> JoinPlanReply {
    let request = JoinPlanRequest { items: 100, unsent_only, ..JoinPlanRequest::default() };
    device.panel().unwrap().join_plan(request).await.unwrap().into_inner()
}

/// A group whose first client was released, edited two things it could not send, and left; what
/// others changed since is in the group.
async fn released_with_unsent_edits() -> (Fleet, Contents) {
    let mut fleet = Fleet::start(2).await.unwrap();
    for id in ["edited", "stale", "gone"] {
        let entry = put(key("user/alice", "address.personal", id), vec![text("name", id), text("fax", "1")]);
        fleet.server.write(vec![entry]).await.unwrap();
    }
    fleet.converged(&SCOPES, PATIENCE).await.unwrap();
    release(&mut fleet, 0).await;
    let released = &fleet.clients[0];
    assert!(faulted(released).await.contains("mfpsync unsent"));
    let edited = key("user/alice", "address.personal", "edited");
    released.write(vec![patch(edited.clone(), vec![text("fax", "2")])]).await.unwrap();
    released.write(vec![put(key("shared", "button.shared", "new"), vec![text("title", "N")])]).await.unwrap();

    let stale = key("user/alice", "address.personal", "stale");
    fleet.server.write(vec![patch(stale, vec![text("fax", "3")])]).await.unwrap();
    fleet.server.write(vec![patch(edited, vec![text("name", "Edited")])]).await.unwrap();
    fleet.server.write(vec![delete(key("user/alice", "address.personal", "gone"))]).await.unwrap();
    let released = fleet.clients.remove(0);
    let relay = fleet.relays.remove(0);
    let group = fleet.converged(&SCOPES, PATIENCE).await.unwrap();
    fleet.clients.push(released);
    fleet.relays.push(relay);
    (fleet, group)
}

async fn leave(device: &TestDevice) {
    let refused = device.panel().unwrap().leave(LeaveRequest { accept_unsent: None }).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
    assert!(refused.message().contains("--accept-unsent 2"), "{}", refused.message());
    let left = device.panel().unwrap().leave(LeaveRequest { accept_unsent: Some(2) }).await.unwrap();
    assert_eq!(left.into_inner().unsent, 2);
}

#[tokio::test]
async fn unsent_edits_of_a_released_device_are_offered_once_somebody_accepted_the_plan() {
    let (mut fleet, group) = released_with_unsent_edits().await;
    let device = fleet.clients.pop().unwrap();
    let wanted = vec![("new".to_owned(), UnsentChange::Added), ("edited".to_owned(), UnsentChange::Changed)];
    let waiting = unsent(&device, false).await.unwrap();
    assert_eq!(ids(&waiting), wanted);
    assert_eq!(waiting[1].fields, ["fax"]);
    assert!(waiting.iter().all(|item| item.item.is_none()), "no values unless asked for");
    leave(&device).await;
    assert_eq!(ids(&unsent(&device, true).await.unwrap()), wanted, "leaving loses none of them");

    let master = fleet.server.hashes().await.unwrap().master;
    let incarnation = device.debug("positions").await.unwrap();
    let reply = come_back(&fleet, &device, &fleet.relays[1].address().to_string()).await;
    assert_eq!((reply.unsent_items, reply.needs_decision), (2, true), "whatever was wished for");
    let plan = planned(&device, false).await;
    let named = planned(&device, true).await;
    assert_eq!(named.items.len(), 2);
    assert!(named.items.iter().all(|item| item.unsent));
    let fate = |id: &str| plan.items.iter().find(|item| item.item_id == id).unwrap().fate();
    assert_eq!((fate("edited"), fate("new")), (JoinFate::Changed, JoinFate::Added));
    assert_eq!((fate("stale"), fate("gone")), (JoinFate::Replaced, JoinFate::LeftOut));
    assert_eq!(fleet.server.hashes().await.unwrap().master, master, "nothing is offered before the consent");
    assert_eq!(device.client_status().await.unwrap().join(), JoinPhase::Joining);

    let request = AcceptJoinRequest { policies: None, plan_id: plan.plan_id };
    device.panel().unwrap().accept_join(request).await.unwrap();
    current(&device).await.unwrap();
    assert_ne!(device.debug("positions").await.unwrap(), incarnation);
    fleet.clients.push(device);
    let contents = fleet.converged(&SCOPES, PATIENCE).await.unwrap();
    let alice = |id: &str| key("user/alice", "address.personal", id);
    assert_eq!(contents.text(&alice("edited"), "fax"), Some("2"));
    assert_eq!(contents.text(&alice("edited"), "name"), Some("Edited"), "merged field by field");
    assert_eq!(contents.text(&key("shared", "button.shared", "new"), "title"), Some("N"));
    assert_eq!(contents.text(&alice("stale"), "fax"), Some("3"), "what only grew old is not offered");
    assert_eq!(contents.item(&alice("gone")), None, "and a deletion stays one");
    assert_eq!(contents.len(), group.len() + 1);
    assert!(fleet.clients[0].set_aside().await.unwrap().is_empty(), "nobody else was disturbed");
}

#[tokio::test]
async fn unsent_edits_that_are_declined_stay_on_the_device() {
    let (mut fleet, group) = released_with_unsent_edits().await;
    let device = fleet.clients.pop().unwrap();
    leave(&device).await;
    let kept = unsent(&device, true).await.unwrap();
    let own = device.hashes().await.unwrap().visible;
    let address = fleet.relays[1].address().to_string();

    come_back(&fleet, &device, &address).await;
    planned(&device, false).await;
    device.panel().unwrap().cancel_join(CancelJoinRequest {}).await.unwrap();
    assert_eq!(unsent(&device, true).await.unwrap(), kept);
    assert_eq!(device.hashes().await.unwrap().visible, own);

    come_back(&fleet, &device, &address).await;
    planned(&device, false).await;
    let policies = Some(JoinPolicies { others: JoinPolicy::Fresh.into(), ..JoinPolicies::default() });
    let request = AcceptJoinRequest { policies, plan_id: Default::default() };
    device.panel().unwrap().accept_join(request).await.unwrap();
    current(&device).await.unwrap();
    fleet.clients.push(device);
    assert_eq!(fleet.converged(&SCOPES, PATIENCE).await.unwrap(), group, "the group got none of it");
    let device = &fleet.clients[1];
    device.panel().unwrap().undo_join(UndoJoinRequest { preview: false }).await.unwrap();
    running(device, Role::Idle).await.unwrap();
    eventually(PATIENCE, "the device to have its own again", async || {
        ensure!(device.status().await?.group.is_none(), "still in the group");
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(unsent(device, true).await.unwrap(), kept);
    assert_eq!(device.hashes().await.unwrap().visible, own);
}

#[tokio::test]
async fn a_dead_device_is_released_and_returns_only_by_pairing_anew() {
    let mut fleet = Fleet::start(2).await.unwrap();
    let button = key("shared", "button.shared", "b");
    fleet.server.write(vec![put(button.clone(), vec![text("title", "one")])]).await.unwrap();
    fleet.converged(&SCOPES, PATIENCE).await.unwrap();
    let id = fleet.clients[1].status().await.unwrap().device_id;
    fleet.clients[1].kill().unwrap();
    for surprise in ["refused", "F-RELEASED", "released"] {
        fleet.server.log.expect(surprise);
        fleet.clients[1].log.expect(surprise);
    }
    let released = command(&fleet.server, &["release", &id]);
    assert!(released.status.success(), "{}", String::from_utf8_lossy(&released.stderr));
    let members = async || {
        let devices = fleet.server.panel()?.devices(DevicesRequest {}).await?.into_inner().devices;
        Ok::<_, anyhow::Error>(devices.into_iter().filter(|device| !device.released).count())
    };
    assert_eq!(members().await.unwrap(), 2, "its slot is free");
    fleet.server.write(vec![patch(button.clone(), vec![text("title", "two")])]).await.unwrap();

    let mut device = fleet.clients.pop().unwrap();
    device.start().await.unwrap();
    faulted(&device).await;
    assert_eq!(device.contents(&SCOPES).await.unwrap().text(&button, "title"), Some("one"));
    device.panel().unwrap().leave(LeaveRequest { accept_unsent: None }).await.unwrap();
    let reply = come_back(&fleet, &device, &fleet.relays[1].address().to_string()).await;
    assert_eq!((reply.unsent_items, reply.needs_decision), (0, false), "nothing to consent to");
    current(&device).await.unwrap();
    fleet.clients.push(device);
    let contents = fleet.converged(&SCOPES, PATIENCE).await.unwrap();
    assert_eq!(contents.text(&button, "title"), Some("two"), "what it had from before is not offered");
}

#[tokio::test]
async fn leaving_names_what_was_not_sent_and_writes_it_to_a_file() {
    let mut fleet = Fleet::start(1).await.unwrap();
    fleet.cut(0).await.unwrap();
    fleet.clients[0].log.expect("tell the server of leaving");
    fleet.clients[0].log.expect("release this device there");
    let device = &fleet.clients[0];
    let button = key("shared", "button.shared", "b");
    device.write(vec![put(button, vec![text("title", "not sent")])]).await.unwrap();
    let refused = command(device, &["leave"]);
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("added    shared button.shared b: title"), "{said}");
    assert!(said.contains("--accept-unsent 1") && !said.contains("not sent\n"), "{said}");

    let file = device.home().join("unsent.json");
    let exported = command(device, &["unsent", "export", file.to_str().unwrap()]);
    assert!(exported.status.success(), "{}", String::from_utf8_lossy(&exported.stderr));
    let document: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(document["items"][0]["values"]["title"], "not sent", "{document}");
    let left = command(device, &["leave", "--accept-unsent", "1", "--json"]);
    let left: serde_json::Value = serde_json::from_slice(&left.stdout).unwrap();
    assert_eq!(left["unsent"], 1);
    let listed = command(device, &["unsent", "--json"]);
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(listed["items"][0]["item_id"], "b", "{listed}");
}

#[tokio::test]
async fn an_old_export_of_an_erased_user_is_refused_until_the_name_is_opened_again() {
    let fleet = Fleet::start(1).await.unwrap();
    let shortcut = key("user/alice", "shortcut", "s");
    fleet.server.write(vec![put(shortcut.clone(), vec![text("label", "old")])]).await.unwrap();
    fleet.converged(&SCOPES, PATIENCE).await.unwrap();
    let file = fleet.server.home().join("alice.json");
    let file = file.to_str().unwrap();
    assert!(command(&fleet.server, &["users", "export", "alice", file]).status.success());
    let person = || UserRequest { user: "alice".to_owned(), actor: "test".to_owned() };
    fleet.server.records().unwrap().erase_user(person()).await.unwrap();
    eventually(PATIENCE, "the erasure to be everywhere", async || {
        ensure!(fleet.clients[0].get(&shortcut).await?.is_none(), "not yet");
        Ok(())
    })
    .await
    .unwrap();
    for device in fleet.devices() {
        let refused = command(device, &["users", "import", file]);
        assert_eq!(refused.status.code(), Some(1), "{}", device.name);
        let said = String::from_utf8(refused.stderr).unwrap();
        assert!(said.contains("erased") && said.contains("nothing was stored"), "{said}");
        assert!(said.contains("mfpsync users readmit") && !said.contains("again to finish"), "{said}");
        assert!(device.get(&shortcut).await.unwrap().is_none());
    }
    assert!(command(&fleet.server, &["users", "readmit", "alice"]).status.success());
    assert!(command(&fleet.server, &["users", "import", file]).status.success());
    let contents = fleet.converged(&SCOPES, PATIENCE).await.unwrap();
    assert_eq!(contents.text(&shortcut, "label"), Some("old"), "by a person's word it may");
}
