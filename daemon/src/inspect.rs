//! What a service engineer may see, as JSON: states, positions, counts and hashes. Never a name, a
//! value or a key of an item: items are shown by pseudonym.

use std::collections::BTreeMap;
use std::sync::Arc;

use mfpsync_replication::tombstones::horizon_of;
use mfpsync_storage::Result;
use mfpsync_storage::master::MasterRead;
use mfpsync_storage::model::{
    ContentHash, Cursor, ItemKey, Kind, Promotion, Scope, Sequence, Signed, Value as FieldValue,
};
use serde_json::{Value, json};

use crate::db::{READ_DEADLINE, SCAN_DEADLINE};
use crate::debug_socket::{Answer, Inspect, Unanswered};
use crate::device::Device;
use crate::reign::left_behind;
use crate::role::SupervisorHandle;
use crate::telemetry::Stats;

/// Runs of missing changes that are shown.
const HELD_RUNS: usize = 100;
/// Changes of one item that are shown.
const HISTORY: u32 = 20;

/// Answers the debug socket's read-only commands.
#[derive(Debug, Clone)]
pub struct Inspector {
    device: Arc<Device>,
    supervisor: SupervisorHandle,
    stats: Arc<Stats>,
}

impl Inspector {
    /// Looks at `device`.
    #[must_use]
    pub fn new(device: Arc<Device>, supervisor: SupervisorHandle, stats: Arc<Stats>) -> Self {
        Self { device, supervisor, stats }
    }

    /// The role, its parts, and who this is.
    fn role_state(&self) -> Value {
        let state = self.supervisor.watch().borrow().clone();
        let link = self.device.link.borrow().clone();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "device": self.device.identity.device().to_string(),
            "wanted": state.wanted().to_string(),
            "running": state.running_role().to_string(),
            "phase": format!("{:?}", state.phase()).to_lowercase(),
            "link": format!("{:?}", link.link).to_lowercase(),
            "link_error": link.last_error,
            "discovered_servers": self.device.discovery.candidates().len(),
        })
    }

    /// Where the master and the mirror stand, and what waits.
    ///
    /// # Errors
    /// The database's.
    async fn read_positions(&self) -> Result<Value> {
        let own = self.device.own.db().read(READ_DEADLINE, |read| {
            Ok((read.device()?, read.waiting()?, read.retained_count()?, read.rejected_count()?))
        });
        let (own, waiting, retained, rejected) = own.await?;
        let server = self.device.server.load_full();
        let master = match server {
            Some(server) => {
                let archived = server.serving.replicating.archived();
                let read = move |read: &MasterRead<'_>| master_positions(read, archived);
                Some(server.serving.master.read(READ_DEADLINE, read).await?)
            }
            None => None,
        };
        Ok(json!({
            "incarnation": format!("{:016x}", own.incarnation.0),
            "mirror": own.cursor.as_ref().map(cursor),
            "resetting": own.resetting,
            "last_operation": own.last_operation.0,
            "low_water": own.low_water.0,
            "waiting": waiting.operations,
            "waiting_bytes": waiting.bytes,
            "retained": retained,
            "retained_dropped": own.retained_dropped,
            "rejected": rejected,
            "master": master,
        }))
    }

    /// The history as this device follows it, and what a change of reign has left.
    ///
    /// # Errors
    /// The database's.
    async fn read_reigns(&self) -> Result<Value> {
        let device = &self.device;
        let read = device.own.db().read(READ_DEADLINE, |read| {
            Ok((read.device()?.followed, read.lineage()?, read.report()?.is_some()))
        });
        let (followed, lineage, report_waits) = read.await?;
        let server = device.server.load_full();
        let at_server = match &server {
            Some(server) => {
                let read = |read: &MasterRead<'_>| Ok((read.lineage()?, read.succession()?));
                Some(server.serving.master.read(READ_DEADLINE, read).await?)
            }
            None => None,
        };
        let (own, succession) = at_server.unzip();
        let rivals = server.map(|server| server.serving.rivals()).unwrap_or_default();
        let control = device.control.current();
        let left = left_behind(device).await;
        let runs = |runs: &[(Sequence, Sequence)]| -> Vec<[u64; 2]> {
            runs.iter().take(HELD_RUNS).map(|(first, last)| [first.0, last.0]).collect()
        };
        Ok(json!({
            "followed": followed,
            "lineage": own.as_ref().unwrap_or(&lineage).iter().map(reign).collect::<Vec<_>>(),
            "highest_seen": control.epoch.map(|epoch| epoch.number),
            "takeover": control.takeover.map(|takeover| json!({
                "decided": !takeover.record.is_empty(),
                "way": format!("{:?}", takeover.way),
            })),
            "released_as_replica": control.released,
            "report_waits": report_waits,
            "rivals": rivals.iter().map(reign).collect::<Vec<_>>(),
            "left_behind": left.map(|left| json!({
                "epoch": left.head.epoch.number,
                "sequence": left.head.sequence.0,
                "surplus": left.surplus(),
            })),
            "succession": succession.flatten().map(|succession| json!({
                "fork": succession.fork.0,
                "known": succession.known.0,
                "reported": succession.reported.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "missing": runs(&succession.missing),
            })),
        }))
    }

    /// Sizes and counts.
    ///
    /// # Errors
    /// The database's.
    async fn read_stats(&self) -> Result<Value> {
        let (own_bytes, own_wal) = self.device.own.db().store().bytes();
        let mut stats = json!({ "own_bytes": own_bytes, "own_wal_bytes": own_wal });
        for (name, count) in self.stats.snapshot() {
            stats[name] = count.into();
        }
        if let Some(server) = self.device.server.load_full() {
            let serving = &server.serving;
            let (bytes, wal) = serving.master.store().bytes();
            stats["master_bytes"] = bytes.into();
            stats["master_wal_bytes"] = wal.into();
            stats["items"] = serving.master.read(READ_DEADLINE, |read| read.item_count()).await?.into();
            stats["connected"] = serving.connected.count().into();
            stats["refused"] = json!(serving.refused());
        }
        Ok(stats)
    }

    /// The faults that stand.
    fn standing_faults(&self) -> Value {
        let faults = self.device.faults.snapshot().into_iter().map(|fault| {
            json!({ "code": fault.code.as_str(), "text": fault.text, "since": fault.since_unix_millis })
        });
        Value::Array(faults.collect())
    }

    /// Content hashes: of the mirror, of what readers see, and of the master.
    ///
    /// # Errors
    /// The database's, or its reader's deadline.
    async fn read_hashes(&self) -> Result<Value> {
        let own = self
            .device
            .own
            .db()
            .read(SCAN_DEADLINE, |read| Ok((read.mirror_hashes()?, read.visible_hashes()?)));
        let (mirror, visible) = own.await?;
        let master = match self.device.server.load_full() {
            Some(server) => {
                Some(server.serving.master.read(SCAN_DEADLINE, |read| read.content_hashes()).await?)
            }
            None => None,
        };
        Ok(json!({
            "mirror": hashes(&mirror),
            "visible": hashes(&visible),
            "master": master.as_ref().map(hashes),
        }))
    }

    /// How an item came to be what it is here, and at the master when this is the server.
    ///
    /// # Errors
    /// The database's.
    async fn explain_item(&self, key: ItemKey) -> Result<Value> {
        let own_key = key.clone();
        let own = self.device.own.db().read(READ_DEADLINE, move |read| {
            let key = read.place(&own_key)?;
            let (item, mirror) = (read.item(&key)?, read.mirror_sequence(&key)?);
            Ok((item, mirror, read.sharing(&key.kind)?, key))
        });
        let (item, mirror, sharing, key) = own.await?;
        let master = match self.device.server.load_full() {
            Some(server) => Some(explain_master(&server.serving.master, key.clone()).await?),
            None => None,
        };
        Ok(json!({
            "item": key.pseudonym(),
            "sharing": sharing.as_str(),
            "device": key.device,
            "here": item.map(|item| json!({
                "state": format!("{:?}", item.state).to_lowercase(),
                "fields": item.fields.iter().map(|(name, value)| shown(name, value)).collect::<Vec<_>>(),
            })),
            "mirror_sequence": mirror.map(|sequence| sequence.0),
            "master": master,
        }))
    }
}

fn one(read: Result<Value>) -> Answer {
    read.map(|value| vec![value]).map_err(|error| Unanswered(error.to_string()))
}

#[tonic::async_trait]
impl Inspect for Inspector {
    async fn state(&self) -> Answer {
        Ok(vec![self.role_state()])
    }

    async fn positions(&self) -> Answer {
        one(self.read_positions().await)
    }

    async fn reigns(&self) -> Answer {
        one(self.read_reigns().await)
    }

    async fn stats(&self) -> Answer {
        one(self.read_stats().await)
    }

    async fn faults(&self) -> Answer {
        Ok(vec![json!({ "faults": self.standing_faults() })])
    }

    async fn hashes(&self) -> Answer {
        one(self.read_hashes().await)
    }

    async fn explain(&self, item: &str) -> Answer {
        let usage = || Unanswered("usage: explain SCOPE KIND ID [DEVICE]".to_owned());
        let mut words = item.split_whitespace();
        let (Some(scope), Some(kind), Some(id)) = (words.next(), words.next(), words.next()) else {
            return Err(usage());
        };
        let device = words.next().unwrap_or_default();
        if words.next().is_some() {
            return Err(usage());
        }
        let key = ItemKey::parse(scope, kind, device, id).map_err(|error| Unanswered(error.to_string()))?;
        one(self.explain_item(key).await)
    }
}

async fn explain_master(
    master: &crate::db::Db<mfpsync_storage::master::Master>,
    key: ItemKey,
) -> Result<Value> {
    let (item, history) =
        master.read(READ_DEADLINE, move |read| Ok((read.item(&key)?, read.history(&key, HISTORY)?))).await?;
    let changes = history.into_iter().map(|change| {
        json!({
            "revision": format!("{}:{}", change.revision.epoch, change.revision.sequence),
            "device": change.device.to_string(),
            "operation": change.operation.0,
            "accepted_at": change.accepted_at,
            "replaced": change.before.fields().map(|fields| fields.names().map(str::to_owned).collect::<Vec<_>>()),
            "lost": change.lost.map(|fields| fields.names().map(str::to_owned).collect::<Vec<_>>()),
        })
    });
    Ok(json!({
        "sequence": item.as_ref().map(|item| item.sequence.0),
        "deleted": item.as_ref().map(|item| item.deleted),
        "field_sequences": item.as_ref().map(|item| {
            item.field_sequences.iter().map(|(name, sequence)| (name.to_owned(), sequence.0)).collect::<BTreeMap<_, _>>()
        }),
        "changes": changes.collect::<Vec<_>>(),
    }))
}

/// A field by name, type and size; its value stays in the database.
fn shown(name: &str, value: &FieldValue) -> Value {
    json!({ "name": name, "type": format!("{value:?}") })
}

/// The head, what is forgotten of deletions, and who keeps the server from forgetting more.
fn master_positions(read: &MasterRead<'_>, archived: Option<Sequence>) -> Result<Value> {
    let (head, horizon) = (read.founded_head()?, horizon_of(read, archived)?);
    Ok(json!({
        "head": cursor(&head.cursor()),
        "tombstone_floor": head.tombstone_floor.0,
        "tombstones_seen_by_all": horizon.through.0,
        "archived": archived.map(|archived| archived.0),
        "tombstones_held_by": horizon.held_by.map(|device| device.to_string()),
    }))
}

fn reign(signed: &Signed<Promotion>) -> Value {
    let Promotion { epoch, parent, ends, device, reason, made_at, .. } = &signed.record;
    json!({
        "epoch": epoch.number,
        "device": device.to_string(),
        "reason": format!("{reason:?}").to_lowercase(),
        "parent": parent.as_ref().map(|parent| json!({
            "epoch": parent.epoch.number,
            "sequence": parent.sequence.0,
            "chain": parent.chain.to_string(),
        })),
        "ends": ends.iter().map(|epoch| epoch.number).collect::<Vec<_>>(),
        "made_at": made_at,
    })
}

fn cursor(cursor: &Cursor) -> Value {
    json!({
        "epoch": cursor.epoch.number,
        "sequence": cursor.sequence.0,
        "chain": cursor.chain.to_string(),
    })
}

/// By pseudonym of scope and kind: scopes name people.
fn hashes(hashes: &BTreeMap<(Scope, Kind), ContentHash>) -> Value {
    let shown = hashes.iter().map(|((scope, kind), content)| {
        let hash: String = content.hash.iter().map(|byte| format!("{byte:02x}")).collect();
        json!({
            "scope": scope.pseudonym(),
            "kind": kind.as_str(),
            "items": content.items,
            "hash": hash,
        })
    });
    Value::Array(shown.collect())
}
