//! The conflict rules said a second time, as simply as can be: maps in memory, no bytes, no code
//! shared with the product. It replays accepted operations in the server's order and must agree
//! with the master about every item and every answer.

use std::collections::{BTreeMap, BTreeSet};

use super::sharing::Moving;

/// Scope, kind, device and id.
pub type Key = [String; 4];

/// A field's value, as far as rules look into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Val {
    /// On or off.
    Flag(bool),
    /// A sealed secret.
    Sealed(Vec<u8>),
    /// Anything else.
    Other(String),
}

/// Fields by name.
pub type FieldMap = BTreeMap<String, Val>;

/// What an edit does.
#[derive(Debug, Clone)]
pub enum Act {
    /// Replaces the item.
    Put(FieldMap),
    /// Sets and removes fields.
    Patch(FieldMap, Vec<String>),
    /// Deletes it.
    Delete,
}

/// One edit.
#[derive(Debug, Clone)]
pub struct Change {
    /// Of which item.
    pub key: Key,
    /// The author's mirror had the item as of this sequence.
    pub base: u64,
    /// The author's own operation this one builds on.
    pub after: Option<u64>,
    /// It gives way to whatever changed since.
    pub yields: bool,
    /// It is offered again: the sequence it had in a reign that ended.
    pub was: Option<u64>,
    /// What it does.
    pub act: Act,
}

/// What became of an edit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Taken.
    Applied,
    /// Taken over something unseen.
    Merged,
    /// Lost, at least in part.
    Superseded,
    /// Was so already.
    Unchanged,
}

/// Why an operation is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Decided at the server alone.
    ReadOnly,
    /// A secret in the clear.
    NotSealed,
    /// The user has too much.
    OverLimit,
    /// It patches what a rejected operation would have made.
    BuildsOnRejected,
}

/// An item.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Item {
    /// Its fields.
    pub fields: FieldMap,
    /// When each field last changed, removed ones too.
    pub stamps: BTreeMap<String, u64>,
    /// What it held when it was deleted.
    pub before: FieldMap,
    /// A tombstone.
    pub deleted: bool,
    /// When it last changed.
    pub sequence: u64,
    /// That change was a switch of sharing.
    pub switched: bool,
    /// What the switch took away.
    pub taken: Option<FieldMap>,
}

/// All items in the server's order.
#[derive(Debug, Clone, Default)]
pub struct Model {
    /// By key, tombstones included.
    pub items: BTreeMap<Key, Item>,
    /// The last sequence given.
    pub head: u64,
    user_items: u64,
    /// Items whose deletion was forgotten once.
    pub forgotten: BTreeSet<Key>,
    /// Kinds of which each device has its own.
    pub(super) own_kinds: BTreeSet<String>,
    /// The switch that is under way.
    pub(super) moving: Option<Moving>,
    pub(super) authors: BTreeMap<u64, u64>,
    /// Items that were offered again in this reign: what their value was in the one before, and where it
    /// stands here.
    pub(super) offered: BTreeMap<Key, (u64, u64)>,
    rejected: BTreeSet<(u64, u64)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Clash {
    Later,
    First,
    On,
    BothMails,
}

/// What two people changing the same thing means for a kind; none: nobody may.
fn policy(kind: &str) -> Option<(Clash, bool)> {
    const EDIT_BEATS_DELETE: bool = true;
    Some(match kind {
        "group.settings" | "group.limits" | "group.sharing" | "group.erased" | "network" => return None,
        "address.shared" | "button.shared" => (Clash::First, !EDIT_BEATS_DELETE),
        "keychain" => (Clash::Later, !EDIT_BEATS_DELETE),
        "ui.accessibility" => (Clash::On, EDIT_BEATS_DELETE),
        "address.personal" | "address.group" => (Clash::BothMails, EDIT_BEATS_DELETE),
        "ui.language" | "button.personal" | "job.recall" => (Clash::Later, EDIT_BEATS_DELETE),
        _ => (Clash::First, EDIT_BEATS_DELETE),
    })
}

/// What an edit would make of its item.
struct Effect {
    verdict: Verdict,
    /// The item afterwards and the fields that changed.
    item: Option<(FieldMap, bool, BTreeSet<String>)>,
}

impl Effect {
    fn none(verdict: Verdict) -> Self {
        Self { verdict, item: None }
    }

    fn whole(verdict: Verdict, fields: FieldMap) -> Self {
        let touched = fields.keys().cloned().collect();
        Self { verdict, item: Some((fields, false, touched)) }
    }
}

impl Model {
    /// Nothing yet; a user may have so many items.
    #[must_use]
    pub fn new(user_items: u64) -> Self {
        Self { user_items, ..Self::default() }
    }

    /// Forgets deletions up to here.
    pub fn forget(&mut self, through: u64) {
        let gone = self.items.extract_if(.., |_, item| item.deleted && item.sequence <= through);
        self.forgotten.extend(gone.map(|(key, _)| key));
    }

    /// Where an edit of a device goes; none: it is kept for its author.
    #[must_use]
    pub fn place(&self, device: &str, key: &Key) -> Option<Key> {
        let [scope, kind, of, id] = key.clone();
        match (self.is_own(key), of.is_empty()) {
            (true, _) => Some([scope, kind, device.to_owned(), id]),
            (false, true) => Some([scope, kind, of, id]),
            (false, false) => None,
        }
    }

    /// Decides one operation of `author`, in its life on `device`, and takes it.
    ///
    /// # Errors
    /// Why it is not taken.
    pub fn apply(
        &mut self,
        author: u64,
        device: &str,
        number: u64,
        changes: &[Change],
    ) -> Result<(u64, Vec<Verdict>), Refused> {
        let (changes, offered) = self.as_offered(device, changes);
        let effects: Result<Vec<Effect>, Refused> =
            changes.iter().map(|change| self.decide(author, device, change)).collect();
        let effects = effects.inspect_err(|_| {
            self.rejected.insert((author, number));
        })?;
        let sequence = self.head + 1;
        let verdicts = effects.iter().map(|effect| effect.verdict).collect();
        for (change, effect) in changes.iter().zip(effects) {
            let Some((fields, deleted, touched)) = effect.item else { continue };
            let Some(key) = self.place(device, &change.key) else { continue };
            let item = self.items.entry(key).or_default();
            item.stamps.extend(touched.into_iter().map(|name| (name, sequence)));
            let before = std::mem::replace(&mut item.fields, fields);
            item.before = if deleted { before } else { FieldMap::new() };
            (item.deleted, item.sequence) = (deleted, sequence);
            (item.switched, item.taken) = (false, None);
            self.head = sequence;
            self.authors.insert(sequence, author);
        }
        for (key, was) in offered {
            if self.items.get(&key).is_some_and(|item| item.sequence == self.head) {
                self.offered.insert(key, (was, self.head));
            }
        }
        Ok((self.head, verdicts))
    }

    /// Of several that offer one item, what was later there is later here, where nobody edited it since.
    fn as_offered(&self, device: &str, changes: &[Change]) -> (Vec<Change>, Vec<(Key, u64)>) {
        let mut offered = Vec::new();
        let as_offered = changes.iter().map(|change| {
            let mut change = change.clone();
            let (Some(was), Some(key)) = (change.was, self.place(device, &change.key)) else { return change };
            let stands = self.items.get(&key).map(|item| item.sequence);
            match self.offered.get(&key).filter(|(_, position)| stands == Some(*position)) {
                Some((earlier, position)) if was > *earlier => {
                    (change.base, change.after, change.yields) = (*position, None, false);
                    offered.push((key, was));
                }
                Some(_) => change.yields = true,
                None => offered.push((key, was)),
            }
            change
        });
        let changes = as_offered.collect();
        (changes, offered)
    }

    fn decide(&self, author: u64, device: &str, change: &Change) -> Result<Effect, Refused> {
        let Some(key) = self.place(device, &change.key) else {
            return Ok(Effect::none(Verdict::Superseded));
        };
        let standing = self.items.get(&key);
        if standing.is_none_or(|item| item.deleted) {
            let patch = matches!(change.act, Act::Patch(..));
            if patch && change.after.is_some_and(|after| self.rejected.contains(&(author, after))) {
                return Err(Refused::BuildsOnRejected);
            }
            if !matches!(change.act, Act::Delete) && self.full(&change.key[0], device) {
                return Err(Refused::OverLimit);
            }
        }
        let (mut clash, mut edit_beats_delete) = policy(&change.key[1]).ok_or(Refused::ReadOnly)?;
        if change.yields {
            // Whichever it is, an edit or a deletion: the other one stands.
            (clash, edit_beats_delete) = (Clash::First, matches!(change.act, Act::Delete));
        }
        let given = match &change.act {
            Act::Put(fields) | Act::Patch(fields, _) => fields.clone(),
            Act::Delete => FieldMap::new(),
        };
        if change.key[1] == "keychain" && !given.values().all(|value| matches!(value, Val::Sealed(_))) {
            return Err(Refused::NotSealed);
        }
        let Some(item) = standing else { return Ok(created(&change.act, given)) };
        let saw_change = |sequence: u64| {
            sequence <= change.base
                || (change.after.is_some() && self.authors.get(&sequence) == Some(&author))
        };
        // Who saw all fields saw the item: a switch moves it and changes nothing.
        let moved = item.switched && item.stamps.values().all(|stamp| saw_change(*stamp));
        let saw = |sequence: u64| saw_change(sequence) || (moved && sequence == item.sequence);
        if item.deleted {
            return Ok(revived(item, &change.act, given, saw(item.sequence), edit_beats_delete));
        }
        let knows = |name: &str| {
            let stamp = item.stamps.get(name).copied().unwrap_or(0);
            // Nobody wrote a second mail: a merge did.
            if clash == Clash::BothMails && name == "second.mail" { stamp <= change.base } else { saw(stamp) }
        };
        Ok(match &change.act {
            Act::Delete => {
                let unseen = !saw(item.sequence) || item.stamps.keys().any(|name| !knows(name));
                match (unseen, edit_beats_delete) {
                    (true, true) => Effect::none(Verdict::Superseded),
                    (unseen, _) => {
                        let verdict = if unseen { Verdict::Merged } else { Verdict::Applied };
                        let gone = item.fields.keys().cloned().collect();
                        Effect { verdict, item: Some((FieldMap::new(), true, gone)) }
                    }
                }
            }
            act => edited(item, clash, act, &given, knows),
        })
    }

    fn full(&self, scope: &str, device: &str) -> bool {
        let of_user = |(key, item): &(&Key, &Item)| {
            key[0] == scope && !item.deleted && (key[2].is_empty() || key[2] == device)
        };
        scope.starts_with("user/") && self.items.iter().filter(of_user).count() as u64 >= self.user_items
    }
}

fn created(act: &Act, given: FieldMap) -> Effect {
    match act {
        Act::Delete => Effect::none(Verdict::Unchanged),
        Act::Patch(..) if given.is_empty() => Effect::none(Verdict::Unchanged),
        Act::Put(_) | Act::Patch(..) => Effect::whole(Verdict::Applied, given),
    }
}

/// An edit of what was deleted.
fn revived(item: &Item, act: &Act, given: FieldMap, knew: bool, edit_beats_delete: bool) -> Effect {
    match act {
        Act::Delete => Effect::none(Verdict::Unchanged),
        Act::Patch(..) if given.is_empty() => Effect::none(Verdict::Unchanged),
        _ if knew => created(act, given),
        Act::Patch(_, remove) if edit_beats_delete => {
            let mut fields = item.before.clone();
            fields.retain(|name, _| !remove.contains(name));
            fields.extend(given);
            Effect::whole(Verdict::Merged, fields)
        }
        _ if edit_beats_delete => Effect::whole(Verdict::Merged, given),
        _ => Effect::none(Verdict::Superseded),
    }
}

fn edited(item: &Item, clash: Clash, act: &Act, given: &FieldMap, knows: impl Fn(&str) -> bool) -> Effect {
    let mut wanted: BTreeMap<&str, Option<&Val>> =
        given.iter().map(|(name, value)| (name.as_str(), Some(value))).collect();
    match act {
        // What a put does not name goes only if its author had seen it.
        Act::Put(_) => {
            let unnamed = item.fields.keys().filter(|name| !given.contains_key(*name) && knows(name));
            wanted.extend(unnamed.map(|name| (name.as_str(), None)));
        }
        Act::Patch(_, remove) => wanted.extend(remove.iter().map(|name| (name.as_str(), None))),
        Act::Delete => {}
    }
    let mut fields = item.fields.clone();
    let (mut touched, mut clashed, mut refused) = (BTreeSet::new(), false, false);
    for (name, want) in wanted {
        let has = item.fields.get(name);
        if has == want {
            continue;
        }
        if !knows(name) {
            let stays = match clash {
                Clash::Later => false,
                Clash::First => true,
                Clash::On => has == Some(&Val::Flag(true)) && matches!(want, None | Some(Val::Flag(false))),
                Clash::BothMails => want.is_none() && name == "second.mail",
            };
            if stays {
                refused = true;
                continue;
            }
            clashed = true;
        }
        match want {
            Some(value) => drop(fields.insert(name.to_owned(), value.clone())),
            None => drop(fields.remove(name)),
        }
        touched.insert(name.to_owned());
    }
    if clash == Clash::BothMails
        && touched.contains("mail")
        && fields.contains_key("mail")
        && !knows("mail")
        && let Some(earlier) = item.fields.get("mail")
    {
        clashed = true;
        if !given.contains_key("second.mail") {
            if item.fields.get("second.mail") != Some(earlier) {
                touched.insert("second.mail".to_owned());
            }
            fields.insert("second.mail".to_owned(), earlier.clone());
        }
    }
    let verdict = match (touched.is_empty(), refused, clashed) {
        (_, true, _) => Verdict::Superseded,
        (true, false, _) => return Effect::none(Verdict::Unchanged),
        (false, false, true) => Verdict::Merged,
        (false, false, false) => Verdict::Applied,
    };
    let item = (!touched.is_empty()).then_some((fields, false, touched));
    Effect { verdict, item }
}
