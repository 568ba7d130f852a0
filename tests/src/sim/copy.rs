//! The replica part: the product's standby copy and what takes pages into it, on a simulated connection.

use mfpsync_replication::apply::{Applied, Applying, prove};
use mfpsync_replication::stream::{FromReplica, ToReplica};
use mfpsync_replication::wire::{from_replica_to_wire, to_replica_from_wire};
use mfpsync_storage::physical::{Position, Standby};
use rand::RngExt;

use super::house::{GROUP, house_at};
use super::network::{Message, Up};
use super::server::HEARTBEAT;
use super::swarm::SECOND;
use super::world::{Event, World};

/// A running replica part.
pub(super) struct Copying {
    pub standby: Standby,
    applying: Applying,
    /// The highest reign known when the connection began.
    floor: u64,
    pub connection: Option<u64>,
    /// Where the server said it stands.
    pub server: Option<Position>,
    heard_at: u64,
    attempts: usize,
}

/// An operator has the replica take over when the server stood down.
#[derive(Debug, Clone, Copy)]
pub(super) struct Handover {
    pub house: usize,
    pub last: Position,
    pub until: u64,
}

impl World {
    /// The replica part comes up; every page of the copy is read before anything is said of it.
    pub(super) fn start_copy(&mut self, house: usize) {
        let own = &mut self.houses[house];
        if own.copying.is_some() {
            return;
        }
        let mut standby = Standby::open(&own.standby_path()).expect("the copy");
        let whole = standby.verify(&|| false).expect("read the copy");
        own.copying = Some(Copying {
            standby,
            applying: Applying::default(),
            floor: 0,
            connection: None,
            server: None,
            heard_at: 0,
            attempts: 0,
        });
        let rotten = self.houses[house].rotten;
        if !whole {
            self.counters.sometimes("changed copy noticed");
        }
        self.require(
            whole || rotten,
            "I-11",
            format_args!("the copy of machine {house} is not what was written"),
        );
        self.note(format_args!("machine {house} is a replica"));
        self.schedule(0, Event::Copy { house, boot: self.houses[house].boot });
    }

    /// The replica part ends as it should; the copy stays.
    pub(super) fn stop_copy(&mut self, house: usize) {
        let Some(copying) = self.houses[house].copying.take() else { return };
        self.note(format_args!("machine {house} is no replica"));
        if let Some(connection) = copying.connection {
            self.hang_up(connection, true);
        }
        copying.standby.close().expect("close the copy");
    }

    /// Looks whether the stream is alive, and dials if there is none.
    pub(super) fn look_after_copy(&mut self, house: usize, boot: u64) {
        let now = self.now;
        let endpoints = self.endpoints(house);
        let own = &mut self.houses[house];
        let Some(copying) = own.copying.as_mut().filter(|_| own.boot == boot) else { return };
        if let Some(connection) = copying.connection
            && now > copying.heard_at + 3 * HEARTBEAT
        {
            copying.connection = None;
            self.hang_up(connection, true);
            self.counters.sometimes("replica found its server silent");
        }
        let copying = self.houses[house].copying.as_mut().expect("a replica");
        if copying.connection.is_none() && !endpoints.is_empty() {
            let place = house_at(&endpoints[copying.attempts % endpoints.len()]);
            copying.attempts += 1;
            let floor = self.houses[house].epoch_seen();
            let connection = self.connect(house, place, None, true);
            let copying = self.houses[house].copying.as_mut().expect("a replica");
            (copying.connection, copying.heard_at) = (Some(connection), now);
            (copying.applying, copying.floor) = (Applying::above(floor), floor);
            let stands = from_replica_to_wire(GROUP, Applying::stands(&copying.standby));
            self.send(connection, Message::Up(Up::Said(stands)));
        }
        let wait = self.rng.random_range(SECOND..3 * SECOND);
        self.schedule(wait, Event::Copy { house, boot });
    }

    /// Something for the replica came.
    pub(super) fn copy_takes(
        &mut self,
        house: usize,
        connection: u64,
        message: mfpsync_proto::replica::ToReplica,
    ) {
        let (now, floor) = (self.now, self.houses[house].epoch_seen());
        let Some(copying) = &mut self.houses[house].copying else { return };
        if copying.connection != Some(connection) {
            return;
        }
        copying.heard_at = now;
        if floor > copying.floor {
            self.counters.sometimes("replica met another reign while it was fed");
            return self.copy_ends(house, connection);
        }
        let message = match to_replica_from_wire(message) {
            Ok(Some(message)) => message,
            Ok(None) => return,
            Err(error) => {
                return self.violate("I-11", format_args!("a replica cannot read its server: {error}"));
            }
        };
        let (part, before) = (matches!(message, ToReplica::Part { .. }), copying.standby.position());
        let applied = match copying.applying.take(&mut copying.standby, message) {
            Ok(applied) => applied,
            Err(error) => {
                self.note(format_args!("the copy of machine {house} takes nothing: {error}"));
                self.counters.sometimes("copy took nothing of its server");
                return self.copy_ends(house, connection);
            }
        };
        let after = copying.standby.position();
        let falls = part && !self.healed && self.chance(self.swarm.crash_commit / 4);
        if after != before {
            self.check_copy(house, before.as_ref());
        }
        if falls {
            self.counters.sometimes("replica crash after taking pages");
            return self.server_crashes(house);
        }
        let copying = self.houses[house].copying.as_mut().expect("a replica");
        let answer = match applied {
            // Only who takes over by plan from the server's side is invited; here the operator is at the replica.
            Applied::Nothing | Applied::TakeOver => return,
            Applied::Head(head) => {
                copying.server = Some(head);
                return copying.standby.rest().expect("rest");
            }
            Applied::Answer(answer) => answer,
            Applied::Prove { proof, position } => {
                let content = if copying.standby.position() == Some(position) {
                    let prover = copying.standby.prover(|| false).expect("a copy to prove");
                    prove(&prover, &position)
                } else {
                    Err("the copy is somewhere else".to_owned())
                };
                FromReplica::Proven { proof, content }
            }
        };
        self.send(connection, Message::Up(Up::Said(from_replica_to_wire(GROUP, answer))));
    }

    /// The replica's stream ended, as the replica hears.
    pub(super) fn copy_ends(&mut self, house: usize, connection: u64) {
        let Some(copying) = self.houses.get_mut(house).and_then(|own| own.copying.as_mut()) else { return };
        if copying.connection == Some(connection) {
            copying.connection = None;
            self.hang_up(connection, true);
        }
    }
}
