//! Sharing of kinds, switched on a fleet of real devices: each goes its own way, and back again.

use anyhow::ensure;
use mfpsync_proto::local::ItemKey;
use mfpsync_proto::panel::Role;
use mfpsync_proto::records::{
    HistoryRequest, KindSharing, SharingOrder, SharingPlan, SharingProgress, SharingRequest, SharingState,
    SharingValues,
};
use mfpsync_tests::item::{delete, key, patch, put, text};
use mfpsync_tests::{Fleet, PATIENCE, TestDevice, eventually, running};
use tonic::{Code, Streaming};

const KIND: &str = "ui.language";

fn language() -> ItemKey {
    key("user/alice", KIND, "panel")
}

fn order(state: SharingState, values: SharingValues, device: &str) -> SharingOrder {
    SharingOrder {
        kind: KIND.to_owned(),
        state: state.into(),
        values: values.into(),
        device: device.to_owned(),
        actor: "admin".to_owned(),
        ..SharingOrder::default()
    }
}

fn apart() -> SharingOrder {
    order(SharingState::DeviceSpecific, SharingValues::Seen, "")
}

/// Looks at the plan, and does what it says.
async fn switch(fleet: &Fleet, order: SharingOrder) -> SharingPlan {
    let mut records = fleet.server.records().unwrap();
    let plan = records.preview_sharing(order.clone()).await.unwrap().into_inner();
    let order = SharingOrder { plan_id: plan.plan_id.clone(), ..order };
    let done = ended(records.set_sharing(order).await.unwrap().into_inner()).await;
    assert_eq!((&done.tally, &done.first), (&plan.tally, &plan.first), "what was shown is what was done");
    done
}

/// Follows a switch to its end.
async fn ended(mut answers: Streaming<SharingProgress>) -> SharingPlan {
    let mut done = 0;
    loop {
        let progress = answers.message().await.unwrap().expect("an answer until it has ended");
        assert!(progress.done >= done && progress.kind == KIND, "{progress:?}");
        done = progress.done;
        if let Some(plan) = progress.ended {
            assert_eq!(plan.tally.unwrap().items, done);
            return plan;
        }
    }
}

/// Waits until a device shows a language of its user.
async fn shows(device: &TestDevice, expected: Option<&str>) {
    eventually(PATIENCE, &format!("{} to show {expected:?}", device.name), async || {
        let (contents, freshness) = device.login("alice", Some(0)).await?;
        let shown: Vec<Option<&str>> = contents
            .iter()
            .filter(|([_, kind, _, id], _)| kind == KIND && id == "panel")
            .map(|(_, fields)| match fields.get("language") {
                Some(mfpsync_proto::local::value::Value::Text(text)) => Some(text.as_str()),
                _ => None,
            })
            .collect();
        ensure!(freshness.current, "not current");
        ensure!(shown == expected.map(Some).into_iter().collect::<Vec<_>>(), "shows {shown:?}");
        let waiting = device.client_status().await?.waiting;
        ensure!(waiting == 0, "{waiting} wait");
        Ok(())
    })
    .await
    .unwrap();
}

async fn says(device: &TestDevice, word: &str) {
    device.write(vec![patch(language(), vec![text("language", word)])]).await.unwrap();
}

async fn with_language(clients: usize) -> Fleet {
    let fleet = Fleet::start(clients).await.unwrap();
    let fields = vec![text("language", "ja"), text("voice", "on")];
    fleet.server.write(vec![put(language(), fields)]).await.unwrap();
    fleet.converged(&["user/alice"], PATIENCE).await.unwrap();
    fleet
}

#[tokio::test]
async fn each_device_goes_its_own_way_one_is_chosen_for_all_and_it_can_be_taken_back() {
    let fleet = with_language(2).await;
    let (one, two) = (&fleet.clients[0], &fleet.clients[1]);
    fleet.cut(1).await.unwrap();
    says(two, "fr").await;
    let plan = switch(&fleet, apart()).await;
    let tally = plan.tally.unwrap();
    assert_eq!((tally.items, tally.copies, tally.kept), (1, 3, 0));
    shows(one, Some("ja")).await;
    says(one, "en").await;
    fleet.mend(1).await.unwrap();
    shows(&fleet.server, Some("ja")).await;
    shows(one, Some("en")).await;
    shows(two, Some("fr")).await;
    assert!(two.set_aside().await.unwrap().is_empty(), "what was written before the switch was taken");
    let item = two.get(&language()).await.unwrap().unwrap();
    assert_eq!(item.len(), 2, "the rest came along");

    let mut records = fleet.server.records().unwrap();
    let kinds = records.sharing(SharingRequest {}).await.unwrap().into_inner().kinds;
    let kind = kinds.iter().find(|kind| kind.kind == KIND).unwrap();
    assert_eq!(kind.state(), SharingState::DeviceSpecific);
    assert_eq!((kind.shared_items, kind.own.len()), (0, 3));
    assert!(kinds.iter().any(|kind| kind.kind == "group.sharing" && kind.fixed));

    let chosen = order(SharingState::Shared, SharingValues::Device, &two.name);
    let tally = switch(&fleet, chosen).await.tally.unwrap();
    assert_eq!((tally.chosen, tally.identical, tally.kept), (1, 1, 2));
    for device in fleet.devices() {
        shows(device, Some("fr")).await;
    }
    fleet.converged(&["user/alice"], PATIENCE).await.unwrap();
    let request = HistoryRequest { scope: "user/alice".to_owned(), ..HistoryRequest::default() };
    let changes = records.history(request).await.unwrap().into_inner().changes;
    assert_eq!(changes.iter().filter(|change| change.act == "sharing").count(), 8, "4 each way");

    switch(&fleet, order(SharingState::DeviceSpecific, SharingValues::Before, "")).await;
    shows(&fleet.server, Some("ja")).await;
    shows(one, Some("en")).await;
    shows(two, Some("fr")).await;
}

#[tokio::test]
async fn an_edit_of_ones_own_waits_for_its_author_when_a_value_was_chosen_for_all() {
    let fleet = with_language(1).await;
    let one = &fleet.clients[0];
    switch(&fleet, apart()).await;
    shows(one, Some("ja")).await;
    fleet.cut(0).await.unwrap();
    says(one, "en").await;
    one.write(vec![delete(key("user/alice", KIND, "none"))]).await.unwrap();
    switch(&fleet, order(SharingState::Shared, SharingValues::Device, "server")).await;
    fleet.mend(0).await.unwrap();
    shows(one, Some("ja")).await;
    let aside = eventually(PATIENCE, "the edit to be set aside", async || {
        let aside = one.set_aside().await?;
        ensure!(aside.len() == 1, "{} are set aside", aside.len());
        Ok(aside)
    });
    assert_eq!(aside.await.unwrap().len(), 1);
    let choice = mfpsync_proto::records::SetAsideChoice::default();
    one.records().unwrap().retry_set_aside(choice).await.unwrap();
    for device in fleet.devices() {
        shows(device, Some("en")).await;
    }
}

#[tokio::test]
async fn who_joins_later_has_its_own_and_a_restart_forgets_nothing() {
    let mut fleet = with_language(1).await;
    switch(&fleet, apart()).await;
    shows(&fleet.clients[0], Some("ja")).await;
    says(&fleet.clients[0], "en").await;
    shows(&fleet.clients[0], Some("en")).await;
    let newcomer = TestDevice::started("newcomer").await.unwrap();
    newcomer.write(vec![put(language(), vec![text("language", "ko")])]).await.unwrap();
    fleet.add(newcomer, mfpsync_proto::panel::JoinPolicy::Merge).await.unwrap();
    shows(&fleet.clients[1], Some("ko")).await;
    fleet.clients[0].restart().await.unwrap();
    shows(&fleet.clients[0], Some("en")).await;
    shows(&fleet.server, Some("ja")).await;
}

#[tokio::test]
async fn a_switch_is_refused_where_it_cannot_be_or_is_not_what_was_shown() {
    let fleet = with_language(1).await;
    let refused = fleet.clients[0].records().unwrap().set_sharing(apart()).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("server"), "{}", refused.message());
    let mut records = fleet.server.records().unwrap();
    let code = async |order: SharingOrder| {
        let mut records = fleet.server.records().unwrap();
        records.set_sharing(order).await.unwrap_err().code()
    };
    let shared = |values| order(SharingState::Shared, values, "");
    assert_eq!(code(shared(SharingValues::Newest)).await, Code::FailedPrecondition, "shared already");
    assert_eq!(code(shared(SharingValues::Unspecified)).await, Code::InvalidArgument);
    assert_eq!(
        code(order(SharingState::Shared, SharingValues::Device, "nobody")).await,
        Code::InvalidArgument
    );
    let network = SharingOrder { kind: "network".to_owned(), ..apart() };
    assert_eq!(code(network).await, Code::InvalidArgument);
    let plan = records.preview_sharing(apart()).await.unwrap().into_inner();
    says(&fleet.server, "en").await;
    shows(&fleet.clients[0], Some("en")).await;
    let stale = SharingOrder { plan_id: plan.plan_id, ..apart() };
    assert_eq!(code(stale).await, Code::Aborted);
    let other = ItemKey { device: "00".repeat(16), ..language() };
    let refused = fleet.server.try_write(vec![put(other, vec![text("language", "de")])]).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

/// So many take several steps.
const MANY: usize = 1_500;

fn numbered(number: usize) -> ItemKey {
    key("shared", KIND, &format!("i{number:04}"))
}

async fn listed(device: &TestDevice) -> KindSharing {
    let kinds = device.records().unwrap().sharing(SharingRequest {}).await.unwrap().into_inner().kinds;
    kinds.into_iter().find(|kind| kind.kind == KIND).unwrap()
}

#[tokio::test]
async fn a_switch_of_many_items_goes_on_after_a_kill_and_pushes_come_between_its_steps() {
    let mut fleet = Fleet::start(1).await.unwrap();
    let numbers: Vec<usize> = (0..MANY).collect();
    for some in numbers.chunks(100) {
        let edits = some.iter().map(|number| put(numbered(*number), vec![text("language", "ja")]));
        fleet.server.write(edits.collect()).await.unwrap();
    }
    fleet.converged(&["shared"], PATIENCE).await.unwrap();
    let mut answers = fleet.server.records().unwrap().set_sharing(apart()).await.unwrap().into_inner();
    let first = answers.message().await.unwrap().unwrap();
    assert!(first.ended.is_none() && first.done > 0 && first.done < first.items, "{first:?}");
    assert_eq!(first.items, MANY as u64);
    fleet.server.kill().unwrap();
    fleet.clients[0].write(vec![patch(numbered(0), vec![text("language", "en")])]).await.unwrap();
    fleet.server.start().await.unwrap();
    running(&fleet.server, Role::ServerClient).await.unwrap();

    let mut records = fleet.server.records().unwrap();
    eventually(PATIENCE, "the switch to end", async || {
        let kind = listed(&fleet.server).await;
        match &kind.under_way {
            Some(progress) => {
                assert_eq!(kind.state(), SharingState::Shared, "until it has ended");
                assert!(progress.done >= first.done, "{progress:?}");
            }
            None => assert_eq!(kind.state(), SharingState::DeviceSpecific, "begun is done"),
        }
        ensure!(kind.under_way.is_none(), "{} done", kind.shared_items);
        Ok(())
    })
    .await
    .unwrap();
    let refused = records.set_sharing(apart()).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{} already", refused.message());
    let kind = listed(&fleet.server).await;
    let own: Vec<u64> = kind.own.iter().map(|own| own.items).collect();
    assert_eq!((kind.shared_items, own), (0, vec![MANY as u64; 2]));
    eventually(PATIENCE, "the device to follow", async || {
        let status = fleet.clients[0].client_status().await?;
        ensure!(status.waiting == 0, "{} wait", status.waiting);
        let (one, other) = (fleet.clients[0].hashes().await?, fleet.server.hashes().await?);
        ensure!(one.mirror == other.mirror, "they differ");
        let seen = fleet.clients[0].contents(&["shared"]).await?;
        ensure!(seen.len() >= MANY, "{} seen", seen.len());
        Ok(())
    })
    .await
    .unwrap();
    let word =
        async |device: &TestDevice| device.get(&numbered(0)).await.unwrap().unwrap().get("language").cloned();
    let said = |word: &str| Some(mfpsync_proto::local::value::Value::Text(word.to_owned()));
    assert_eq!(word(&fleet.clients[0]).await, said("en"), "what was written before it heard is its own");
    assert_eq!(word(&fleet.server).await, said("ja"));
    assert!(fleet.clients[0].set_aside().await.unwrap().is_empty());
}
