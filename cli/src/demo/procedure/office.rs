//! The group that a procedure is told about: what people edit meanwhile, what the screens say, whether all is there.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use mfpsync_addressbook::{class, field};
use mfpsync_proto::local::edit::Edit as EditKind;
use mfpsync_proto::local::{Edit, Item, ItemKey, ItemState, Put, Value};
use mfpsync_proto::panel::{Durability, Role, RolePhase, StatusReply, StatusRequest};

use super::super::fleet::{COPIER, Device, Fleet};
use super::super::narrator::{Narrator, took};
use super::super::{arrival, context_of, steps};
use crate::book::{Target, import};
use crate::command::{Context, item, now_unix_millis, replication, transfer};
use crate::exit::Failure;
use crate::kit::Kit;
use crate::render::{status, units::count};
use crate::sockets::{Sockets, within};
use crate::value::{by_name, text_field};
use crate::wait::Verdict;

const POLL: Duration = Duration::from_millis(20);
/// Whose address list is edited while machines come and go.
const USER: &str = "user/alice";
const USER_KIND: &str = "address.personal";
/// From which line on a status tells what a procedure is about.
const SCREEN_BEGINS: [&str; 3] = ["Server", "Client", "Safe"];

/// A server, its clients, and all that was ever written there.
#[derive(Debug)]
pub(super) struct Office<'a> {
    pub(super) narrator: &'a Narrator,
    pub(super) fleet: &'a mut Fleet,
    /// The group's recovery kit.
    pub(super) kit: Kit,
    /// Items of the list that was imported at the beginning.
    imported: usize,
    /// Entries that were written since, one edit each.
    edits: usize,
}

impl<'a> Office<'a> {
    /// copier-1 serves; the clients have joined, and all have an address list.
    ///
    /// # Errors
    /// The step that failed.
    pub(super) async fn open(
        narrator: &'a Narrator,
        fleet: &'a mut Fleet,
        clients: &[usize],
    ) -> Result<Self, Failure> {
        narrator.chapter("The devices")?;
        for at in [&[COPIER], clients].concat() {
            steps::start(narrator, fleet, at, None).await?;
        }
        let kit = steps::found_group(narrator, fleet).await?;
        narrator.chapter("The others join by code")?;
        let address = fleet.device(COPIER)?.address;
        for at in clients {
            steps::join(narrator, fleet, COPIER, *at, address).await?;
        }
        let imported = import_list(&fleet.device(COPIER)?.sockets).await?;
        narrator.say(&format!("an address list of {imported} items is imported at copier-1"))?;
        Ok(Self { narrator, fleet, kit, imported, edits: 0 })
    }

    pub(super) fn device(&self, at: usize) -> Result<&Device, Failure> {
        self.fleet.device(at)
    }

    /// What the commands of this device are run with.
    ///
    /// # Errors
    /// There is no such device.
    pub(super) fn context(&self, at: usize) -> Result<Context, Failure> {
        Ok(context_of(self.narrator, self.device(at)?.sockets.clone()))
    }

    /// Starts a machine that is new, or comes back.
    ///
    /// # Errors
    /// It does not answer in time.
    pub(super) async fn start(&mut self, at: usize) -> Result<(), Failure> {
        steps::start(self.narrator, self.fleet, at, None).await
    }

    /// Makes the device at `replica` the replica, certified by the kit, and waits until it has everything.
    ///
    /// # Errors
    /// The daemon's refusal, or the copy is not complete in time.
    pub(super) async fn replicate(&self, server: usize, replica: usize) -> Result<(), Failure> {
        let (server, replica) = (self.device(server)?, self.device(replica)?);
        let began = Instant::now();
        let device_id = status_of(replica).await?.device_id;
        replication::replicate(&server.sockets, device_id, Durability::Async, Some(&self.kit)).await?;
        until(server, "the copy to be complete", transfer::replica_ready).await?;
        until(server, "everything to be safe", all_safe).await?;
        let name = replica.name;
        self.narrator.say(&format!(
            "{name} is certified by the kit, and its copy complete, after {}",
            took(began.elapsed())
        ))
    }

    /// So many entries are written at a device's panel, one after the other.
    ///
    /// # Errors
    /// The daemon's refusal.
    pub(super) async fn edit(&mut self, at: usize, number: usize) -> Result<(), Failure> {
        let began = Instant::now();
        for _ in 0..number {
            self.write(at).await?;
        }
        let name = self.device(at)?.name;
        let entries = count(number as u64, "entry", "entries");
        self.narrator.say(&format!("{name}: {entries} written at the panel in {}", took(began.elapsed())))
    }

    /// Writes the next entry at a device's panel.
    async fn write(&mut self, at: usize) -> Result<ItemKey, Failure> {
        self.edits += 1;
        let number = self.edits;
        let key = ItemKey {
            scope: USER.to_owned(),
            kind: USER_KIND.to_owned(),
            device: String::new(),
            id: format!("contact-{number:03}"),
        };
        let fields = vec![
            text_field(field::CLASS, class::EMAIL),
            text_field(field::NAME, format!("Contact {number}")),
            text_field(field::MAIL, format!("contact-{number}@example.com")),
        ];
        let put = Put { key: Some(key.clone()), fields };
        let edits = vec![Edit { edit: Some(EditKind::Put(put)) }];
        item::write(&self.device(at)?.sockets, edits, "mfpsync demo").await?;
        Ok(key)
    }

    /// Waits until the server has taken all edits of a device; returns its status.
    ///
    /// # Errors
    /// It does not in time.
    pub(super) async fn sent(&self, at: usize) -> Result<StatusReply, Failure> {
        let taken = |status: &StatusReply| match &status.client {
            Some(client) if client.waiting == 0 => Verdict::Reached,
            Some(_) | None => Verdict::NotYet,
        };
        self.until(at, "all edits to be taken", taken).await
    }

    /// Writes an entry at the new server's own panel, and tells how long after `decided` it was accepted, and when it
    /// had come to the others, which nobody has told of the new server.
    ///
    /// # Errors
    /// It was not accepted, or one of the others does not follow, in time.
    pub(super) async fn first_write(
        &mut self,
        server: usize,
        followers: &[usize],
        decided: Instant,
    ) -> Result<(), Failure> {
        let key = self.write(server).await?;
        let (server, narrator) = (self.device(server)?, self.narrator);
        // In turn: the last figure is the time after which all of them follow.
        let seen = async {
            for at in followers {
                let device = self.device(*at)?;
                let (_item, seen) = arrival::of_item(&device.sockets, &key, |_item| true).await?;
                narrator.say(&format!(
                    "{} follows, with no command, {} after the decision",
                    device.name,
                    took(seen - decided)
                ))?;
            }
            Ok(())
        };
        let accepted = async {
            accepted(&server.sockets, &key).await?;
            let name = server.name;
            narrator.say(&format!(
                "the first change is accepted, at {name}, {} after the decision",
                took(decided.elapsed())
            ))
        };
        tokio::try_join!(accepted, seen)?;
        Ok(())
    }

    /// Waits until these devices show everything that was ever written, and the same.
    ///
    /// # Errors
    /// Something is missing or differs after all the patience there is.
    pub(super) async fn complete(&self, devices: &[usize]) -> Result<(), Failure> {
        let devices = devices.iter().map(|at| self.device(*at)).collect::<Result<Vec<_>, _>>()?;
        let began = Instant::now();
        let patience = devices.first().map_or(Duration::ZERO, |device| device.sockets.timeout);
        within(patience, "every device showing everything", async {
            while !self.all_there(&devices).await? {
                tokio::time::sleep(POLL).await;
            }
            Ok(())
        })
        .await?;
        let names: Vec<&str> = devices.iter().map(|device| device.name).collect();
        let edits = count(self.edits as u64, "entry", "entries");
        self.narrator.say(&format!(
            "every edit is there, {} later: the same {} items and {edits} on {}",
            took(began.elapsed()),
            self.imported,
            names.join(", ")
        ))
    }

    async fn all_there(&self, devices: &[&Device]) -> Result<bool, Failure> {
        let mut shown: Option<Vec<Item>> = None;
        for device in devices {
            let entries = item::list(&device.sockets, USER, USER_KIND).await?;
            if entries.len() != self.edits {
                return Ok(false);
            }
            let mut items = item::list(&device.sockets, "shared", "").await?;
            if items.len() != self.imported {
                return Ok(false);
            }
            items.extend(entries);
            if shown.as_ref().is_some_and(|shown| !same(shown, &items)) {
                return Ok(false);
            }
            shown = Some(items);
        }
        Ok(true)
    }

    /// What a person at this device is told: what is safe, what waits, what is wrong, and what is next.
    ///
    /// # Errors
    /// The device does not answer.
    pub(super) async fn screen(&self, at: usize) -> Result<(), Failure> {
        let device = self.device(at)?;
        let text = status::text(&status_of(device).await?, now_unix_millis());
        let begins = |line: &str| SCREEN_BEGINS.iter().any(|label| line.starts_with(label));
        let lines: Vec<&str> = text.lines().skip_while(|line| !begins(line)).collect();
        self.narrator.say(&format!("`mfpsync status` at {}:", device.name))?;
        self.narrator.show(&lines.join("\n"))
    }

    /// Waits until this role runs, whatever runs before.
    ///
    /// # Errors
    /// It does not in time.
    pub(super) async fn becomes(&self, at: usize, role: Role) -> Result<(), Failure> {
        let runs = |status: &StatusReply| {
            if status.running() == role && status.phase() == RolePhase::Running {
                Verdict::Reached
            } else {
                Verdict::NotYet
            }
        };
        self.until(at, &format!("the role {}", status::role_name(role)), runs).await.map(drop)
    }

    /// Waits until the status of a device is as wanted; returns it.
    ///
    /// # Errors
    /// It does not become so in time, or only a person can help.
    pub(super) async fn until(
        &self,
        at: usize,
        what: &str,
        verdict: impl Fn(&StatusReply) -> Verdict,
    ) -> Result<StatusReply, Failure> {
        until(self.device(at)?, what, verdict).await
    }

    /// How a device stands.
    ///
    /// # Errors
    /// It does not answer.
    pub(super) async fn status(&self, at: usize) -> Result<StatusReply, Failure> {
        status_of(self.device(at)?).await
    }
}

async fn status_of(device: &Device) -> Result<StatusReply, Failure> {
    device.sockets.call(device.sockets.panel().await?.status(StatusRequest {})).await
}

/// The replica has on stable storage all that the server has.
pub(super) fn all_safe(status: &StatusReply) -> Verdict {
    match &status.server {
        Some(server) if server.safe.is_some() && server.safe == server.head => Verdict::Reached,
        Some(_) | None => Verdict::NotYet,
    }
}

/// Asks again and again: a watched status comes twice a second at the most, and a story is told faster.
async fn until(
    device: &Device,
    what: &str,
    verdict: impl Fn(&StatusReply) -> Verdict,
) -> Result<StatusReply, Failure> {
    within(device.sockets.timeout, &format!("{}: {what}", device.name), async {
        loop {
            let status = status_of(device).await?;
            match verdict(&status) {
                Verdict::Reached => return Ok(status),
                Verdict::Stuck(why) => return Err(Failure::NeedsPerson(why)),
                Verdict::NotYet => tokio::time::sleep(POLL).await,
            }
        }
    })
    .await
}

async fn import_list(sockets: &Sockets) -> Result<usize, Failure> {
    let target = Target::new("shared", None).map_err(Failure::Usage)?;
    let plan = import::prepare(sockets, &target, steps::ADDRESS_LIST, None).await?.plan;
    import::store(sockets, plan, "mfpsync demo", &ProgressBar::hidden()).await?;
    Ok(item::list(sockets, "shared", "").await?.len())
}

/// The server's answer changes how an item stands and not what it shows, so there is no event for it. While a device
/// reads everything anew of another reign, the item may not show at all.
async fn accepted(sockets: &Sockets, key: &ItemKey) -> Result<(), Failure> {
    within(sockets.timeout, "the first change to be accepted", async {
        loop {
            let item = arrival::get(sockets, key).await?;
            if item.is_some_and(|item| item.state() == ItemState::Synced) {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
    })
    .await
}

/// Whether both show the same, in whatever order.
fn same(one: &[Item], other: &[Item]) -> bool {
    one.len() == other.len() && by_key(one) == by_key(other)
}

fn by_key(items: &[Item]) -> BTreeMap<(&str, &str, &str), BTreeMap<&str, Value>> {
    let keyed = items.iter().filter_map(|item| Some((item.key.as_ref()?, by_name(&item.fields))));
    keyed.map(|(key, fields)| ((key.scope.as_str(), key.kind.as_str(), key.id.as_str()), fields)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(id: &str, name: &str) -> Item {
        let key = ItemKey { scope: "shared".to_owned(), id: id.to_owned(), ..ItemKey::default() };
        Item { key: Some(key), fields: vec![text_field("name", name)], ..Item::default() }
    }

    #[test]
    fn devices_show_the_same_when_every_item_has_its_twin() {
        let (one, two) = (item("1", "a"), item("2", "b"));
        assert!(same(&[one.clone(), two.clone()], &[two.clone(), one.clone()]));
        assert!(!same(std::slice::from_ref(&one), &[one.clone(), two.clone()]));
        assert!(!same(&[one.clone(), two], &[one.clone(), item("2", "c")]));
        assert!(!same(&[one.clone(), item("2", "b")], &[one.clone(), one]));
    }
}
