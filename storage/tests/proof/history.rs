//! The history as a whole: walking over it, and wiping it.

use mfpsync_storage::master::{
    Author, Before, HistoryFilter, HistoryLine, HistoryPlace, Loss, OfferedAgain, OperatorAct,
};
use mfpsync_storage::model::{DeviceId, ItemKey, Scope, Sequence};

use crate::support::{Server, author, fields, key, removal, write};

fn lines(server: &Server, filter: &HistoryFilter, page: usize, rows: usize) -> Vec<String> {
    let (mut shown, mut place) = (Vec::new(), Some(HistoryPlace::NEWEST));
    while let Some(at) = place {
        let found = server.0.read(|read| read.browse(filter, at, page, rows)).unwrap();
        assert!(found.lines.len() <= page);
        shown.extend(found.lines.into_iter().map(|line| match line {
            HistoryLine::Change { key, entry } => format!("{} {}", entry.revision.sequence.0, key.id),
            HistoryLine::Lost(lost) => format!("{}+ {}", lost.after.0, lost.key.id),
        }));
        place = found.next;
    }
    shown
}

fn filled() -> Server {
    let mut server = Server::founded();
    server.accept(1, &[write("a", &[("x", "1")]), write("b", &[("x", "1")])]);
    let loss = Loss { key: key("a"), by: Sequence(1), fields: fields(&[("x", "lost")]) };
    server.0.write(|write| write.keep_loss(&author(7), &loss)).unwrap();
    server.accept(2, &[write("a", &[("x", "2")])]);
    server.accept(3, &[removal("b")]);
    server
}

#[test]
fn pages_of_any_size_show_every_change_and_every_lost_edit_once_newest_first() {
    let server = filled();
    let all = ["3 b", "2 a", "1+ a", "1 b", "1 a"];
    for (page, rows) in [(1, 1), (1, 9), (2, 2), (5, 1), (9, 9)] {
        assert_eq!(lines(&server, &HistoryFilter::default(), page, rows), all, "{page} {rows}");
    }
    let since = HistoryFilter { since: Sequence(2), ..HistoryFilter::default() };
    assert_eq!(lines(&server, &since, 9, 9), ["3 b", "2 a"]);
    let nobody = HistoryFilter { device: Some(DeviceId([9; 16])), ..HistoryFilter::default() };
    assert!(lines(&server, &nobody, 9, 1).is_empty());
    let late = HistoryFilter { since_millis: 2_003, ..HistoryFilter::default() };
    assert_eq!(lines(&server, &late, 9, 9), ["3 b", "1+ a"], "the clock of acceptance");
    assert_eq!(server.0.read(|read| read.first_since(2_002)).unwrap(), Sequence(2));
    assert_eq!(server.0.read(|read| read.first_since(9_999)).unwrap(), Sequence(4));
}

#[test]
fn an_entry_knows_what_stood_before_also_when_that_was_nothing() {
    let server = filled();
    let history = server.0.read(|read| read.history(&key("b"), 9)).unwrap();
    assert!(history[0].deleted && history[0].before == Before::Fields(fields(&[("x", "1")])));
    assert_eq!(
        (history[1].before.clone(), history[1].touched.clone()),
        (Before::Absent, vec!["x".to_owned()])
    );
    let secret = mfpsync_storage::master::ItemWrite { keep_prior: false, ..write("a", &[("x", "3")]) };
    let mut server = server;
    server.accept(4, &[secret]);
    let history = server.0.read(|read| read.history_since(&key("a"), Sequence(2))).unwrap();
    assert_eq!(history.iter().map(|entry| entry.revision.sequence.0).collect::<Vec<_>>(), [4, 2]);
    assert_eq!(history[0].before, Before::Forgotten);
}

#[test]
fn a_wiped_scope_leaves_no_value_and_no_name_but_a_whole_chain() {
    let mut server = filled();
    let other = ItemKey::parse("shared", "address.shared", "", "s").unwrap();
    let mut by_sato = write("s", &[("x", "1")]);
    by_sato.key = other.clone();
    server.accept(5, &[by_sato]);
    let (scope, stand_in) = (key("a").scope, Scope::user("0123").unwrap());
    let offered = OfferedAgain { was: Sequence(9), position: Sequence(1) };
    server.0.write(|write| write.put_offered_again(&key("a"), offered)).unwrap();
    server.0.write(|write| write.wipe_history(&scope, &stand_in, "sato")).unwrap();
    let wiped = HistoryFilter { scope: Some(scope), ..HistoryFilter::default() };
    assert!(lines(&server, &wiped, 9, 9).is_empty());
    let stands = HistoryFilter { scope: Some(stand_in), ..HistoryFilter::default() };
    assert_eq!(lines(&server, &stands, 9, 9), ["3 erased", "2 erased", "1 erased", "1 erased"]);
    let history = server.0.read(|read| read.history(&key("a"), 9)).unwrap();
    assert_eq!(history.len(), 2);
    assert!(history.iter().all(|entry| entry.before.fields().is_none() && entry.lost.is_none()));
    let elsewhere = server.0.read(|read| read.history(&other, 9)).unwrap();
    assert_eq!(server.0.read(|read| read.offered_again(&key("a"))).unwrap(), None);
    assert_eq!(elsewhere[0].actor, "", "the name as an actor is gone too");
}

#[test]
fn the_operators_marks_are_no_devices() {
    let acts = [OperatorAct::Undo, OperatorAct::DeleteUser, OperatorAct::Erase, OperatorAct::Readmit];
    for act in acts.into_iter().chain([OperatorAct::Share, OperatorAct::BringBack]) {
        let author = Author::operator(DeviceId([1; 16]), act, "admin".to_owned(), 5);
        assert_eq!(OperatorAct::of(author.incarnation, author.operation), Some(act));
    }
    let device = author(1);
    assert_eq!(OperatorAct::of(device.incarnation, device.operation), None);
}
