//! Two devices edit while they cannot hear each other: what becomes of it, by kind.

use mfpsync_proto::local::{Edit, Field, ItemKey};
use mfpsync_tests::item::{delete, flag, key, patch, put, text};
use mfpsync_tests::{Contents, Fleet, PATIENCE};

/// Two clients with one item in common, both cut off.
struct Apart {
    fleet: Fleet,
    item: ItemKey,
}

impl Apart {
    async fn with(scope: &str, kind: &str, fields: Vec<Field>) -> Self {
        let fleet = Fleet::start(2).await.unwrap();
        let item = key(scope, kind, "item");
        fleet.server.write(vec![put(item.clone(), fields)]).await.unwrap();
        fleet.converged(&[scope], PATIENCE).await.unwrap();
        fleet.cut(0).await.unwrap();
        fleet.cut(1).await.unwrap();
        Self { fleet, item }
    }

    async fn edit(&self, client: usize, edit: Edit) {
        self.fleet.clients[client].write(vec![edit]).await.unwrap();
    }

    /// The first client comes back first, so that its edits are accepted first.
    async fn reunite(&self) -> Contents {
        let scopes = [self.item.scope.as_str()];
        self.fleet.mend(0).await.unwrap();
        mfpsync_tests::eventually(PATIENCE, "the first edits to be accepted", async || {
            let waiting = self.fleet.clients[0].client_status().await?.waiting;
            anyhow::ensure!(waiting == 0, "{waiting} wait");
            Ok(())
        })
        .await
        .unwrap();
        self.fleet.mend(1).await.unwrap();
        self.fleet.converged(&scopes, PATIENCE).await.unwrap()
    }

    /// What was set aside at a client: outcome and fields.
    async fn set_aside(&self, client: usize) -> Vec<(String, Vec<String>)> {
        let edits = self.fleet.clients[client].set_aside().await.unwrap();
        for edit in &edits {
            assert_eq!((&edit.scope, &edit.kind), (&self.item.scope, &self.item.kind));
            assert_eq!(edit.item_id, self.item.id);
        }
        edits.into_iter().map(|edit| (edit.outcome, edit.fields)).collect()
    }
}

#[tokio::test]
async fn different_fields_of_one_item_are_merged() {
    let apart =
        Apart::with("shared", "address.shared", vec![text("name", "Office"), text("mail", "o@example.com")])
            .await;
    apart.edit(0, patch(apart.item.clone(), vec![text("name", "Front office")])).await;
    apart.edit(1, patch(apart.item.clone(), vec![text("mail", "front@example.com")])).await;
    let contents = apart.reunite().await;
    assert_eq!(contents.text(&apart.item, "name"), Some("Front office"));
    assert_eq!(contents.text(&apart.item, "mail"), Some("front@example.com"));
    assert!(apart.set_aside(0).await.is_empty());
    assert!(apart.set_aside(1).await.is_empty());
}

#[tokio::test]
async fn of_a_shared_entry_the_first_accepted_value_stands_and_the_loser_is_told() {
    let apart = Apart::with("shared", "address.shared", vec![text("name", "Office")]).await;
    apart.edit(0, patch(apart.item.clone(), vec![text("name", "First")])).await;
    apart.edit(1, patch(apart.item.clone(), vec![text("name", "Second"), text("note", "new")])).await;
    let contents = apart.reunite().await;
    assert_eq!(contents.text(&apart.item, "name"), Some("First"));
    assert_eq!(contents.text(&apart.item, "note"), Some("new"), "what did not conflict is taken");
    assert!(apart.set_aside(0).await.is_empty());
    assert_eq!(apart.set_aside(1).await, [("superseded".to_owned(), vec!["name".to_owned()])]);
}

#[tokio::test]
async fn of_a_personal_setting_the_later_accepted_value_stands() {
    let apart = Apart::with("user/alice", "ui.language", vec![text("value", "en")]).await;
    apart.edit(0, patch(apart.item.clone(), vec![text("value", "ja")])).await;
    apart.edit(1, patch(apart.item.clone(), vec![text("value", "de")])).await;
    let contents = apart.reunite().await;
    assert_eq!(contents.text(&apart.item, "value"), Some("de"));
}

#[tokio::test]
async fn accessibility_that_is_on_stays_on() {
    let name = "high-contrast";
    let apart =
        Apart::with("user/alice", "ui.accessibility", vec![flag(name, false), flag("voice", false)]).await;
    apart.edit(0, patch(apart.item.clone(), vec![flag(name, true)])).await;
    // The same flag, written again as it was, together with another one.
    apart.edit(1, patch(apart.item.clone(), vec![flag(name, true)])).await;
    apart.edit(1, patch(apart.item.clone(), vec![flag(name, false), flag("voice", true)])).await;
    let contents = apart.reunite().await;
    let on = Some(&mfpsync_proto::local::value::Value::Flag(true));
    let item = contents.item(&apart.item).unwrap();
    assert_eq!(item.get(name), on, "later, and yet it does not switch off");
    assert_eq!(item.get("voice"), on);
}

#[tokio::test]
async fn of_a_shared_entry_a_deletion_wins_over_an_edit() {
    let apart = Apart::with("shared", "address.shared", vec![text("name", "Office")]).await;
    apart.edit(0, delete(apart.item.clone())).await;
    apart.edit(1, patch(apart.item.clone(), vec![text("name", "Edited")])).await;
    let contents = apart.reunite().await;
    assert_eq!(contents.item(&apart.item), None);
    assert_eq!(apart.set_aside(1).await, [("superseded".to_owned(), vec!["name".to_owned()])]);
}

#[tokio::test]
async fn of_a_personal_entry_an_edit_wins_over_a_deletion_in_either_order() {
    for deletes_first in [true, false] {
        let (deleter, editor) = if deletes_first { (0, 1) } else { (1, 0) };
        let apart = Apart::with(
            "user/alice",
            "address.personal",
            vec![text("name", "Bob"), text("mail", "b@example.com")],
        )
        .await;
        apart.edit(deleter, delete(apart.item.clone())).await;
        apart.edit(editor, patch(apart.item.clone(), vec![text("name", "Robert")])).await;
        let contents = apart.reunite().await;
        assert_eq!(contents.text(&apart.item, "name"), Some("Robert"), "deleted first: {deletes_first}");
        assert_eq!(
            contents.text(&apart.item, "mail"),
            Some("b@example.com"),
            "deleted first: {deletes_first}"
        );
    }
}

#[tokio::test]
async fn two_destinations_of_a_personal_entry_are_both_kept() {
    let apart = Apart::with("user/alice", "address.personal", vec![text("mail", "old@example.com")]).await;
    apart.edit(0, patch(apart.item.clone(), vec![text("mail", "first@example.com")])).await;
    apart.edit(1, patch(apart.item.clone(), vec![text("mail", "later@example.com")])).await;
    let contents = apart.reunite().await;
    assert_eq!(contents.text(&apart.item, "mail"), Some("later@example.com"));
    assert_eq!(contents.text(&apart.item, "second.mail"), Some("first@example.com"));
}

#[tokio::test]
async fn a_persons_second_offline_edit_does_not_conflict_with_the_first() {
    // First accepted wins for this kind: were the second edit taken for a stranger's, it would lose.
    let apart = Apart::with("shared", "address.shared", vec![text("name", "Office")]).await;
    apart.edit(0, patch(apart.item.clone(), vec![text("name", "One")])).await;
    apart.edit(0, patch(apart.item.clone(), vec![text("name", "Two")])).await;
    apart.edit(0, put(apart.item.clone(), vec![text("name", "Three")])).await;
    let contents = apart.reunite().await;
    assert_eq!(contents.text(&apart.item, "name"), Some("Three"));
    assert!(apart.set_aside(0).await.is_empty());
}

#[tokio::test]
async fn both_sides_created_the_same_item() {
    let apart = Apart::with("shared", "address.shared", vec![text("name", "Office")]).await;
    let created = key("shared", "address.shared", "new");
    apart.edit(0, put(created.clone(), vec![text("name", "First"), text("mail", "f@example.com")])).await;
    apart.fleet.clients[1]
        .write(vec![put(created.clone(), vec![text("name", "Second"), text("fax", "1")])])
        .await
        .unwrap();
    let contents = apart.reunite().await;
    assert_eq!(contents.text(&created, "name"), Some("First"));
    assert_eq!(contents.text(&created, "mail"), Some("f@example.com"));
    assert_eq!(contents.text(&created, "fax"), Some("1"));
}
