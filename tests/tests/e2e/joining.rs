//! Joins of devices that bring data of their own: planned, decided, cut by power failures, taken back.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use mfpsync_proto::panel::{
    AcceptJoinRequest, CancelJoinRequest, JoinFate, JoinPhase, JoinPlanReply, JoinPlanRequest, JoinPolicies,
    JoinPolicy, JoinRequest, JoinTally, Role, UndoJoinRequest,
};
use mfpsync_tests::item::{key, patch, put, text};
use mfpsync_tests::{Fleet, PATIENCE, TestDevice, current, eventually, open_pairing, running};

const OWN: usize = 500;
const THERE: usize = 300;

/// Entries of a list, each with an id of this machine's own.
async fn fill(device: &TestDevice, machine: &str, numbers: std::ops::Range<usize>) -> Result<()> {
    let numbers: Vec<usize> = numbers.collect();
    for some in numbers.chunks(50) {
        let edits = some.iter().map(|number| {
            let fields = vec![
                text("class", "email"),
                text("mail", &format!("person{number}@example.com")),
                text("name", &format!("Person {number}")),
                text("index", &format!("{}", 200 + number)),
            ];
            put(key("shared", "address.personal", &format!("{machine}-{number}")), fields)
        });
        device.write(edits.collect()).await?;
    }
    Ok(())
}

/// Pairs, and leaves what becomes of the own items for later.
async fn begin(fleet: &Fleet, device: &TestDevice, review: bool) -> Result<()> {
    let code = open_pairing(&fleet.server).await?.code;
    let request = JoinRequest { address: fleet.server.address().to_string(), code, policies: None, review };
    device.panel()?.join(request).await?;
    Ok(())
}

async fn plan(device: &TestDevice, request: JoinPlanRequest) -> Result<JoinPlanReply> {
    Ok(device.panel()?.join_plan(request).await?.into_inner())
}

async fn in_phase(device: &TestDevice, phase: JoinPhase) -> Result<()> {
    eventually(PATIENCE, &format!("{} to be {phase:?}", device.name), async || {
        let status = device.client_status().await?;
        ensure!(status.join() == phase, "{:?}", status.join());
        Ok(())
    })
    .await
}

fn only(tallies: &[JoinTally]) -> &JoinTally {
    assert_eq!(tallies.len(), 1, "{tallies:?}");
    &tallies[0]
}

/// How often each destination stands at a device.
async fn destinations(device: &TestDevice) -> Result<BTreeMap<String, usize>> {
    let contents = device.contents(&["shared"]).await?;
    let mut found = BTreeMap::new();
    for (place, _) in contents.iter() {
        let [scope, kind, _, id] = place;
        let mail = contents.text(&key(scope, kind, id), "mail").unwrap_or_default();
        *found.entry(mail.to_owned()).or_default() += 1;
    }
    Ok(found)
}

#[tokio::test]
async fn a_join_does_what_its_plan_said_and_its_undo_brings_both_sides_back() {
    let mut fleet = Fleet::start(1).await.unwrap();
    fill(&fleet.server, "office", 0..THERE).await.unwrap();
    fleet.converged(&["shared"], PATIENCE).await.unwrap();
    let newcomer = TestDevice::started("newcomer").await.unwrap();
    fill(&newcomer, "newcomer", 0..OWN).await.unwrap();
    let own_before = newcomer.hashes().await.unwrap().visible;
    let group_before = fleet.server.hashes().await.unwrap().master;

    begin(&fleet, &newcomer, true).await.unwrap();
    let planned = plan(&newcomer, JoinPlanRequest { items: 500, ..Default::default() }).await.unwrap();
    let tally = only(&planned.tallies).clone();
    assert_eq!((tally.identical, tally.added, tally.changed), (THERE as u64, (OWN - THERE) as u64, 0));
    assert_eq!((tally.replaced, tally.left_out), (0, 0));
    assert_eq!((planned.matching, planned.items.len()), (OWN as u64, OWN));
    let met = planned.items.iter().find(|item| item.item_id == "newcomer-7").unwrap();
    assert_eq!((met.fate(), met.group_item_id.as_str()), (JoinFate::Identical, "office-7"));
    assert_eq!(newcomer.hashes().await.unwrap().visible, own_before, "the device shows its own meanwhile");
    assert_eq!(fleet.server.hashes().await.unwrap().master, group_before, "the group is not touched");

    let request = AcceptJoinRequest { policies: None, plan_id: planned.plan_id };
    let done = newcomer.panel().unwrap().accept_join(request).await.unwrap().into_inner();
    assert_eq!(done.tallies, planned.tallies);
    current(&newcomer).await.unwrap();
    fleet.clients.push(newcomer);
    let contents = fleet.converged(&["shared"], PATIENCE).await.unwrap();
    assert_eq!(contents.len(), OWN);
    for device in fleet.devices() {
        let found = destinations(device).await.unwrap();
        assert!(found.len() == OWN && found.values().all(|times| *times == 1), "{}: {found:?}", device.name);
    }

    let newcomer = fleet.clients.pop().unwrap();
    let undo = UndoJoinRequest { preview: true };
    let preview = newcomer.panel().unwrap().undo_join(undo).await.unwrap().into_inner();
    let undone = newcomer.panel().unwrap().undo_join(UndoJoinRequest { preview: false }).await.unwrap();
    assert_eq!(undone.into_inner(), preview);
    assert_eq!((preview.removed, preview.restored, preview.standing), ((OWN - THERE) as u64, 0, 0));
    running(&newcomer, Role::Idle).await.unwrap();
    eventually(PATIENCE, "the device to have its own again", async || {
        let status = newcomer.status().await?;
        ensure!(status.group.is_none(), "still in the group");
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(newcomer.hashes().await.unwrap().visible, own_before);
    fleet.converged(&["shared"], PATIENCE).await.unwrap();
    assert_eq!(fleet.server.hashes().await.unwrap().master, group_before);
}

#[tokio::test]
async fn a_join_that_is_given_up_touched_nothing_and_the_device_may_join_again() {
    let fleet = Fleet::server_only().await.unwrap();
    fill(&fleet.server, "office", 0..5).await.unwrap();
    let newcomer = TestDevice::started("newcomer").await.unwrap();
    fill(&newcomer, "newcomer", 3..8).await.unwrap();
    let own_before = newcomer.hashes().await.unwrap().visible;
    let group_before = fleet.server.hashes().await.unwrap().master;
    begin(&fleet, &newcomer, true).await.unwrap();
    plan(&newcomer, JoinPlanRequest::default()).await.unwrap();
    let left = newcomer.panel().unwrap().cancel_join(CancelJoinRequest {}).await.unwrap().into_inner();
    assert!(left.slot_freed);
    running(&newcomer, Role::Idle).await.unwrap();
    assert_eq!(newcomer.hashes().await.unwrap().visible, own_before);
    assert_eq!(fleet.server.hashes().await.unwrap().master, group_before);
    let refused = newcomer.panel().unwrap().cancel_join(CancelJoinRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition, "{refused}");

    begin(&fleet, &newcomer, false).await.unwrap();
    current(&newcomer).await.unwrap();
    eventually(PATIENCE, "both lists at the server", async || {
        let found = destinations(&fleet.server).await?;
        ensure!(found.len() == 8 && found.values().all(|times| *times == 1), "{found:?}");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn policies_may_differ_by_kind() {
    let mut fleet = Fleet::server_only().await.unwrap();
    let (tone, language) = (key("user/alice", "shortcut", "s1"), key("user/alice", "ui.language", "l"));
    fleet.server.write(vec![put(tone.clone(), vec![text("value", "group")])]).await.unwrap();
    fleet.server.write(vec![put(language.clone(), vec![text("value", "group")])]).await.unwrap();
    let newcomer = TestDevice::started("newcomer").await.unwrap();
    newcomer.write(vec![put(tone.clone(), vec![text("value", "own")])]).await.unwrap();
    newcomer.write(vec![put(language.clone(), vec![text("value", "own")])]).await.unwrap();
    begin(&fleet, &newcomer, true).await.unwrap();
    let kinds = [("ui.language".to_owned(), i32::from(JoinPolicy::DeviceWins))].into();
    let policies = Some(JoinPolicies { others: JoinPolicy::ServerWins.into(), kinds });
    let request = AcceptJoinRequest { policies, plan_id: Default::default() };
    newcomer.panel().unwrap().accept_join(request).await.unwrap();
    current(&newcomer).await.unwrap();
    fleet.clients.push(newcomer);
    let contents = fleet.converged(&["user/alice"], PATIENCE).await.unwrap();
    assert_eq!(contents.text(&tone, "value"), Some("group"));
    assert_eq!(contents.text(&language, "value"), Some("own"));
}

#[tokio::test]
async fn a_plan_that_others_made_untrue_is_refused() {
    let fleet = Fleet::server_only().await.unwrap();
    fill(&fleet.server, "office", 0..3).await.unwrap();
    let newcomer = TestDevice::started("newcomer").await.unwrap();
    fill(&newcomer, "newcomer", 0..4).await.unwrap();
    begin(&fleet, &newcomer, true).await.unwrap();
    let planned = plan(&newcomer, JoinPlanRequest::default()).await.unwrap();
    let entry = key("shared", "address.personal", "office-1");
    fleet.server.write(vec![patch(entry, vec![text("name", "Somebody Else")])]).await.unwrap();
    eventually(PATIENCE, "the news to be in the plan", async || {
        let now = plan(&newcomer, JoinPlanRequest::default()).await?;
        ensure!(now.plan_id != planned.plan_id, "not yet");
        Ok(())
    })
    .await
    .unwrap();
    let request = AcceptJoinRequest { policies: None, plan_id: planned.plan_id };
    let refused = newcomer.panel().unwrap().accept_join(request).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition, "{refused}");
    assert!(refused.message().contains("nothing was changed"), "{}", refused.message());
    in_phase(&newcomer, JoinPhase::Joining).await.unwrap();
}

/// Proves I-10.
#[tokio::test]
async fn a_join_and_its_undo_outlast_power_failures() {
    let mut fleet = Fleet::start(1).await.unwrap();
    fill(&fleet.server, "office", 0..30).await.unwrap();
    fleet.converged(&["shared"], PATIENCE).await.unwrap();
    let group_before = fleet.server.hashes().await.unwrap().master;
    let mut newcomer = TestDevice::started("newcomer").await.unwrap();
    fill(&newcomer, "newcomer", 20..60).await.unwrap();
    let own_before = newcomer.hashes().await.unwrap().visible;

    begin(&fleet, &newcomer, true).await.unwrap();
    newcomer.kill().unwrap();
    newcomer.start().await.unwrap();
    assert_eq!(newcomer.hashes().await.unwrap().visible, own_before);
    let planned = plan(&newcomer, JoinPlanRequest::default()).await.unwrap();
    assert_eq!(only(&planned.tallies).added, 30);
    let request = AcceptJoinRequest { policies: None, plan_id: planned.plan_id };
    newcomer.panel().unwrap().accept_join(request).await.unwrap();
    newcomer.kill().unwrap();
    newcomer.start().await.unwrap();
    current(&newcomer).await.unwrap();
    fleet.clients.push(newcomer);
    assert_eq!(fleet.converged(&["shared"], PATIENCE).await.unwrap().len(), 60);

    let mut newcomer = fleet.clients.pop().unwrap();
    newcomer.panel().unwrap().undo_join(UndoJoinRequest { preview: false }).await.unwrap();
    newcomer.kill().unwrap();
    newcomer.start().await.unwrap();
    eventually(PATIENCE, "the undo to end", async || {
        let status = newcomer.status().await?;
        ensure!(status.group.is_none() && status.running() == Role::Idle, "{:?}", status.running());
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(newcomer.hashes().await.unwrap().visible, own_before);
    eventually(PATIENCE, "the group to be as before", async || {
        ensure!(fleet.server.hashes().await?.master == group_before, "not yet");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_join_that_was_left_by_hand_has_nothing_to_take_back() {
    let fleet = Fleet::server_only().await.unwrap();
    let device = TestDevice::started("alone").await.unwrap();
    for preview in [true, false] {
        let refused = device.panel().unwrap().undo_join(UndoJoinRequest { preview }).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::FailedPrecondition, "{refused}");
    }
    begin(&fleet, &device, true).await.unwrap();
    let refused = device.panel().unwrap().undo_join(UndoJoinRequest { preview: false }).await.unwrap_err();
    assert!(refused.message().contains("cancel"), "{}", refused.message());
}
