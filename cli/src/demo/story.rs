//! What happens in the demo without a procedure: an address list, a cut and a merge. Each step says what it did and
//! how long it took.

use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use mfpsync_addressbook::{class, field};
use mfpsync_proto::local::edit::Edit as EditKind;
use mfpsync_proto::local::{Edit, Field, Item, ItemKey, Patch};
use mfpsync_proto::panel::client_status::Link;
use mfpsync_proto::panel::{SetAsideReply, SetAsideRequest, StatusReply, UnlockDebugRequest};
use tokio::sync::Barrier;

use super::fleet::{COPIER, Fleet, PRINTER, SCANNER};
use super::narrator::{Narrator, took};
use super::relay::Relay;
use super::{Ending, arrival, steps};
use crate::book::plan::Plan;
use crate::book::{Target, import};
use crate::command::{debug, item, now_unix_millis};
use crate::exit::Failure;
use crate::output::printable;
use crate::render::{items, set_aside, units::count};
use crate::sockets::{Sockets, within};
use crate::value::{by_name, text_field, text_of};
use crate::wait::{self, Verdict};

const SHOWN_ENTRIES: usize = 3;
const SHOWN_DEBUG_CHARS: usize = 200;
const POLL: Duration = Duration::from_millis(20);
const DEBUG_MINUTES: u32 = 5;

/// Mail address that printer-2 enters; accepted first.
const PRINTERS_MAIL: &str = "front-desk@example.com";
/// Mail address that scanner-3 enters while cut off; comes second.
const SCANNERS_MAIL: &str = "reception@example.com";
/// Short name that scanner-3 enters while cut off; nobody else changes it.
const SCANNERS_SHORT_NAME: &str = "Reception";

/// Tells the whole story; with `keep` the daemons run on.
///
/// # Errors
/// The step that failed.
pub(super) async fn tell(narrator: &Narrator, fleet: &mut Fleet, keep: bool) -> Result<Ending, Failure> {
    let target = Target::new("shared", None).map_err(Failure::Usage)?;
    let server_address = fleet.device(COPIER)?.address;
    let relay = Relay::open(server_address)
        .await
        .map_err(|error| Failure::Failed(format!("open the demo's relay: {error}")))?;
    narrator.chapter("Three devices")?;
    for (at, dial_only) in [(COPIER, None), (PRINTER, None), (SCANNER, Some(relay.address()))] {
        steps::start(narrator, fleet, at, dial_only).await?;
    }
    steps::found_group(narrator, fleet).await?;
    narrator.chapter("Two clients join by code")?;
    steps::join(narrator, fleet, COPIER, PRINTER, server_address).await?;
    steps::join(narrator, fleet, COPIER, SCANNER, relay.address()).await?;
    import_list(narrator, fleet, &target).await?;
    let key = conflict(narrator, fleet, &target, &relay).await?;
    look_inside(narrator, &fleet.device(SCANNER)?.sockets, &key).await?;
    if keep {
        settle_down(narrator, fleet).await?
    } else {
        steps::end(narrator, fleet).await?
    }
    Ok(Ending { server: COPIER, client: PRINTER })
}

async fn import_list(narrator: &Narrator, fleet: &Fleet, target: &Target) -> Result<(), Failure> {
    narrator.chapter("An address list is imported at copier-1")?;
    let (copier, printer, scanner) =
        (&fleet.device(COPIER)?.sockets, &fleet.device(PRINTER)?.sockets, &fleet.device(SCANNER)?.sockets);
    let plan = import::prepare(copier, target, steps::ADDRESS_LIST, None).await?.plan;
    let expected = usize::try_from(plan.entries()).unwrap_or(usize::MAX);
    let begun = Barrier::new(3);
    let (imported, at_printer, at_scanner) = tokio::try_join!(
        write_list(copier, plan, &begun),
        arrival::entries(printer, target, expected, &begun),
        arrival::entries(scanner, target, expected, &begun),
    )?;
    let (began, ended) = imported;
    narrator.say(&format!("{expected} entries stored at copier-1 in {}", took(ended - began)))?;
    for (name, at) in [("printer-2", at_printer), ("scanner-3", at_scanner)] {
        let (after, total) = (at.saturating_duration_since(ended), at - began);
        narrator.say(&format!(
            "all {expected} are on {name} {} after the import's end, {} in all",
            took(after),
            took(total)
        ))?;
    }
    show_some(narrator, scanner, target).await
}

async fn write_list(sockets: &Sockets, plan: Plan, begun: &Barrier) -> Result<(Instant, Instant), Failure> {
    begun.wait().await;
    let began = Instant::now();
    import::store(sockets, plan, "mfpsync demo", &ProgressBar::hidden()).await?;
    Ok((began, Instant::now()))
}

async fn show_some(narrator: &Narrator, sockets: &Sockets, target: &Target) -> Result<(), Failure> {
    let found = item::list(sockets, &target.scope, &target.kind).await?;
    let total = count(found.len() as u64, "entry", "entries");
    narrator.say(&format!("scanner-3 holds {total}; {SHOWN_ENTRIES} of them:"))?;
    let line = |item: &Item| {
        let text = |name| printable(text_of(&item.fields, name).unwrap_or("-"));
        format!("{}  {}  {}", text(field::INDEX), text(field::NAME), text(field::MAIL))
    };
    let mails = found.iter().filter(|item| is_mail(item)).take(SHOWN_ENTRIES);
    narrator.show(&mails.map(line).collect::<Vec<_>>().join("\n"))
}

fn is_mail(item: &Item) -> bool {
    text_of(&item.fields, field::CLASS) == Some(class::EMAIL)
}

/// Both devices edit the same entry while one is cut off; returns the entry's key.
async fn conflict(
    narrator: &Narrator,
    fleet: &Fleet,
    target: &Target,
    relay: &Relay,
) -> Result<ItemKey, Failure> {
    narrator.chapter("scanner-3 is cut off, and both clients edit the same entry")?;
    let (copier, printer, scanner) =
        (&fleet.device(COPIER)?.sockets, &fleet.device(PRINTER)?.sockets, &fleet.device(SCANNER)?.sockets);
    let found = item::list(copier, &target.scope, &target.kind).await?;
    let entry =
        found.into_iter().find(is_mail).ok_or_else(|| Failure::Failed("no mail entry to edit".to_owned()))?;
    let key = entry.key.clone().unwrap_or_default();
    narrator.say("before:")?;
    narrator.show(&short(&entry))?;
    let began = Instant::now();
    relay.cut();
    wait::until(scanner, "scanner-3 noticing the cut", noticed).await?;
    narrator
        .say(&format!("scanner-3 noticed the cut after {}; its panel works on", took(began.elapsed())))?;

    let began = Instant::now();
    edit(scanner, &key, text_field(field::SHORT_NAME, SCANNERS_SHORT_NAME)).await?;
    edit(scanner, &key, text_field(field::MAIL, SCANNERS_MAIL)).await?;
    narrator.say(&format!("scanner-3, offline: short name \"{SCANNERS_SHORT_NAME}\", mail {SCANNERS_MAIL} (two edits stored in {})", took(began.elapsed())))?;
    let began = Instant::now();
    edit(printer, &key, text_field(field::MAIL, PRINTERS_MAIL)).await?;
    let (_item, seen) =
        arrival::of_item(copier, &key, |item| text_of(&item.fields, field::MAIL) == Some(PRINTERS_MAIL))
            .await?;
    narrator
        .say(&format!("printer-2: mail {PRINTERS_MAIL}, visible at copier-1 after {}", took(seen - began)))?;

    narrator.chapter("The cable is mended")?;
    let began = Instant::now();
    relay.mend();
    let (on_copier, on_printer, on_scanner) = tokio::try_join!(
        arrival::of_item(copier, &key, merged),
        arrival::of_item(printer, &key, merged),
        arrival::of_item(scanner, &key, merged),
    )?;
    let last = on_copier.1.max(on_printer.1).max(on_scanner.1);
    let same = by_name(&on_copier.0.fields) == by_name(&on_printer.0.fields)
        && by_name(&on_copier.0.fields) == by_name(&on_scanner.0.fields);
    if !same {
        return Err(Failure::Failed("the devices hold different versions of the entry".to_owned()));
    }
    narrator.say(&format!("the same merged entry is on all three after {}:", took(last - began)))?;
    narrator.show(&short(&on_scanner.0))?;
    let lost = loser(scanner).await?;
    narrator.say("scanner-3's mail address came second; it is kept, not dropped (`mfpsync set-aside`):")?;
    narrator.show(&set_aside::text(&lost, now_unix_millis()))?;
    Ok(key)
}

async fn edit(sockets: &Sockets, key: &ItemKey, field: Field) -> Result<(), Failure> {
    let patch = Patch { key: Some(key.clone()), set: vec![field], remove: Vec::new() };
    item::write(sockets, vec![Edit { edit: Some(EditKind::Patch(patch)) }], "mfpsync demo").await?;
    Ok(())
}

fn merged(item: &Item) -> bool {
    text_of(&item.fields, field::MAIL) == Some(PRINTERS_MAIL)
        && text_of(&item.fields, field::SHORT_NAME) == Some(SCANNERS_SHORT_NAME)
}

fn noticed(status: &StatusReply) -> Verdict {
    match status.client.as_ref().map(mfpsync_proto::panel::ClientStatus::link) {
        Some(Link::Waiting | Link::Connecting) => Verdict::Reached,
        Some(Link::Unspecified | Link::CatchingUp | Link::Current | Link::Refused) | None => Verdict::NotYet,
    }
}

/// The entry's shared fields alone, for a short display.
fn short(item: &Item) -> String {
    const SHOWN: [&str; 4] = [field::CLASS, field::NAME, field::SHORT_NAME, field::MAIL];
    let mut item = item.clone();
    item.fields.retain(|field| SHOWN.contains(&field.name.as_str()));
    items::text(&item)
}

/// The answer to an operation may arrive after its effect; there is no event for it.
async fn loser(sockets: &Sockets) -> Result<SetAsideReply, Failure> {
    within(sockets.timeout, "the answer to scanner-3's second edit", async {
        loop {
            let reply = sockets.call(sockets.panel().await?.set_aside(SetAsideRequest {})).await?;
            if !reply.edits.is_empty() {
                return Ok(reply);
            }
            tokio::time::sleep(POLL).await;
        }
    })
    .await
}

async fn look_inside(narrator: &Narrator, sockets: &Sockets, key: &ItemKey) -> Result<(), Failure> {
    narrator.chapter("What a service engineer sees at scanner-3")?;
    let request = UnlockDebugRequest { minutes: DEBUG_MINUTES };
    sockets.call(sockets.panel().await?.unlock_debug(request)).await?;
    narrator.say("debug socket unlocked by the operator")?;
    let explain = format!("explain {} {} {}", key.scope, key.kind, key.id);
    for command in ["state", "positions", explain.as_str()] {
        let lines = debug::ask(sockets, command).await?;
        narrator.say(&format!("debug run {command}"))?;
        narrator.show(&lines.iter().map(|line| shortened(line)).collect::<Vec<_>>().join("\n"))?;
    }
    Ok(())
}

fn shortened(line: &str) -> String {
    match line.char_indices().nth(SHOWN_DEBUG_CHARS) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line.to_owned(),
    }
}

/// The relay ends with the demo: scanner-3 starts again and finds the server by what it has learnt.
async fn settle_down(narrator: &Narrator, fleet: &mut Fleet) -> Result<(), Failure> {
    narrator.chapter("scanner-3 restarts without the relay")?;
    fleet.stop(SCANNER).await?;
    let began = Instant::now();
    fleet.start(SCANNER, None).await?;
    wait::until(&fleet.device(SCANNER)?.sockets, "arrival of the group's data", wait::link_reached).await?;
    narrator.say(&format!("scanner-3 is current again after {}", took(began.elapsed())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_debug_lines_are_cut_at_a_character() {
        assert_eq!(shortened("short"), "short");
        let long = "漢".repeat(SHOWN_DEBUG_CHARS + 1);
        assert_eq!(shortened(&long).chars().count(), SHOWN_DEBUG_CHARS + 1);
    }

    #[test]
    fn the_story_is_told_with_a_sound_list() {
        let (book, _notices) = mfpsync_addressbook::csv::read(steps::ADDRESS_LIST).unwrap();
        let mails = book.entries.iter().filter(|entry| entry.text(field::CLASS) == Some(class::EMAIL));
        assert!(mails.count() >= SHOWN_ENTRIES);
    }
}
