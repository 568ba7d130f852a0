//! Who is in the group: devices are let in, released, certified, and known by where they are reached.

use std::sync::PoisonError;

use bytes::Bytes;
use mfpsync_proto::sync::Reason;
use mfpsync_replication::message::Hello;
use mfpsync_replication::wire::membership_to_wire;
use mfpsync_storage::master::{Durability, MasterWrite, Replication};
use mfpsync_storage::model::{Capabilities, DeviceId, IssuingCertificate, Member, PublicKey, Signed};
use mfpsync_storage::{Error, Priority};
use tokio::sync::watch;
use tonic::{Code, Status};

use super::Serving;
use crate::authority::Root;
use crate::communication::{Code as EventCode, Event};
use crate::db::READ_DEADLINE;
use crate::fault::{Fault, FaultCode};
use crate::net::frames::frame;
use crate::refusal::{self, status};

/// Devices a group may have.
const DEVICES: usize = 1_000;
/// From this part of it on a person should know.
const DEVICES_NEARLY_PERCENT: usize = 90;

/// What a device said of itself at its last hello.
#[derive(Debug, Clone)]
pub(super) struct Introduction {
    issuing_key: Option<PublicKey>,
    endpoints: Vec<String>,
}

/// What became of a device that wants to be a member.
enum Enrolled {
    Admitted,
    Taken,
    Full,
}

impl Serving {
    /// The frame that carries the membership, now and whenever it changes.
    #[must_use]
    pub fn membership(&self) -> watch::Receiver<Bytes> {
        self.membership.subscribe()
    }

    pub(super) async fn reload_membership(&self) -> Result<(), Error> {
        let (members, issuers) =
            self.master.read(READ_DEADLINE, |read| Ok((read.members()?, read.issuers()?))).await?;
        self.roster.update(members.iter().map(|signed| signed.record.clone()));
        match frame(&membership_to_wire(&members, &issuers)) {
            Ok(rows) => drop(self.membership.send_replace(rows)),
            // A thousand rows are far from it; the next hello carries them all the same.
            Err(status) => tracing::warn!(%status, "encode the membership"),
        }
        self.watch_devices();
        Ok(())
    }

    /// Tells people before the last slot is taken.
    fn watch_devices(&self) {
        let admitted = self.roster.members().iter().filter(|member| !member.released).count();
        if admitted * 100 >= DEVICES * DEVICES_NEARLY_PERCENT {
            self.faults
                .set(Fault::with_detail(FaultCode::DevicesNearlyFull, format_args!("machines: {admitted}")));
        } else {
            self.faults.clear(FaultCode::DevicesNearlyFull);
        }
    }

    /// Changes one membership row by what all of them are at that moment, and makes it count at once,
    /// on open connections too. Without a row to write nothing changes. As other changes it is not taken
    /// while the server stands down: the copy would lack it.
    pub(super) async fn change_members<T: Send + 'static>(
        &self,
        mut change: impl FnMut(&MasterWrite<'_>, &[Member]) -> Result<(T, Option<Member>), Error> + Send + 'static,
    ) -> Result<T, Status> {
        let (issuing, pass) = (self.issuing.clone(), self.pass());
        let write = move |write: &MasterWrite<'_>| {
            if let Err(held) = pass() {
                return Ok(Err(held));
            }
            let members: Vec<Member> = write.members()?.into_iter().map(|signed| signed.record).collect();
            let (answer, row) = change(write, &members)?;
            let row = row.map(|row| issuing.sign_member(row));
            row.iter().try_for_each(|row| write.put_member(row))?;
            Ok(Ok((answer, row.map(|row| row.record))))
        };
        let written = self.master.write(Priority::Sync, write).await;
        let (answer, row) = written.map_err(|error| self.storage_failed(&error))??;
        if let Some(row) = row {
            // What was written counts, also if the rows cannot be read just now.
            self.roster.update([row]);
            self.reload_membership().await.map_err(|error| self.storage_failed(&error))?;
        }
        Ok(answer)
    }

    /// Takes a device into the group, or back into it.
    ///
    /// # Errors
    /// The group is full, or the database fails.
    ///
    /// # Cancel safety
    /// The device may be a member although the future was dropped; pairing again is harmless.
    pub async fn enrol(&self, device: DeviceId, public_key: PublicKey, name: String) -> Result<(), Status> {
        let (group, issuer) = (self.head().group, self.issuing.device());
        let enrolled = self.change_members(move |write, members| {
            let known = members.iter().find(|member| member.device == device);
            let mut admitted = members.iter().filter(|member| !member.released);
            if admitted.any(|member| (member.device == device) != (member.public_key == public_key)) {
                return Ok((Enrolled::Taken, None));
            }
            let admitted = members.iter().filter(|member| !member.released).count();
            if known.is_none_or(|known| known.released) && admitted >= DEVICES {
                return Ok((Enrolled::Full, None));
            }
            // A person paired it anew, with a new incarnation: a quarantine is over.
            write.forget_progress(device)?;
            write.report_nothing(device)?;
            let row = Member {
                group,
                device,
                public_key,
                name: name.clone(),
                capabilities: Capabilities::CLIENT,
                released: false,
                version: known.map_or(1, |known| known.version + 1),
                endpoints: Vec::new(),
                issuer,
            };
            Ok((Enrolled::Admitted, Some(row)))
        });
        match enrolled.await? {
            Enrolled::Admitted => {
                self.communication.record(Event::new(EventCode::MemberJoined).peer(device));
                Ok(())
            }
            Enrolled::Taken => {
                let text = "another device of the group has this device's id or key; release that one first";
                Err(status(Code::AlreadyExists, Reason::DevicesFull, text))
            }
            Enrolled::Full => {
                let text = format!("the group has {DEVICES} devices already; release one first");
                Err(status(Code::ResourceExhausted, Reason::DevicesFull, text))
            }
        }
    }

    /// Ends a device's membership: its connections are cut, its slot is free.
    ///
    /// # Errors
    /// The database fails.
    ///
    /// # Cancel safety
    /// As [`Serving::enrol`].
    pub async fn release(&self, device: DeviceId) -> Result<(), Status> {
        if self.replicating.standing().is_some_and(|standing| standing.set.device == device) {
            self.stop_replica().await?;
        }
        let release = move |_: &MasterWrite<'_>, members: &[Member]| {
            let known = members.iter().find(|member| member.device == device && !member.released);
            let row =
                known.map(|known| Member { released: true, version: known.version + 1, ..known.clone() });
            Ok(((), row))
        };
        self.change_members(release).await
    }

    /// Hears where a device would be reached as a server, and what key it would sign with. The addresses
    /// of one that may serve become known to all.
    ///
    /// # Errors
    /// The database fails.
    ///
    /// # Cancel safety
    /// As [`Serving::enrol`].
    pub async fn introduce(&self, device: DeviceId, hello: &Hello) -> Result<(), Status> {
        let Hello { issuing_key, endpoints, .. } = hello.clone();
        // Whoever asks on behalf of a reign of its own names none.
        if endpoints.is_empty() && issuing_key.is_none() {
            return Ok(());
        }
        let known = Introduction { issuing_key, endpoints: endpoints.clone() };
        self.introduced.lock().unwrap_or_else(PoisonError::into_inner).insert(device, known);
        let row = self.roster.member(device);
        let serves = row.is_some_and(|row| {
            !row.released && row.capabilities.contains(Capabilities::SERVE) && row.endpoints != endpoints
        });
        if !serves || endpoints.is_empty() || device == self.issuing.device() || self.pass()().is_err() {
            return Ok(());
        }
        self.change_row(device, move |row| Member { endpoints: endpoints.clone(), ..row }).await.map(drop)
    }

    async fn change_row(
        &self,
        device: DeviceId,
        change: impl Fn(Member) -> Member + Send + 'static,
    ) -> Result<bool, Status> {
        let change = move |_: &MasterWrite<'_>, members: &[Member]| {
            let known = members.iter().find(|member| member.device == device && !member.released);
            let row = known.map(|known| change(Member { version: known.version + 1, ..known.clone() }));
            Ok((row.is_some(), row))
        };
        self.change_members(change).await
    }

    /// Has the group's root certify the key of a device, which may serve from then on when the operator
    /// says so there.
    ///
    /// # Errors
    /// The root is another group's, the device did not say hello since this server started, or the
    /// database fails.
    ///
    /// # Cancel safety
    /// As [`Serving::enrol`].
    pub async fn certify(&self, device: DeviceId, root: &Root) -> Result<(), Status> {
        if root.anchor() != self.anchor {
            return Err(Status::invalid_argument(
                "this is the recovery kit of another group; nothing was changed",
            ));
        }
        let key = self.introduced(device).and_then(|known| known.issuing_key).ok_or_else(|| {
            Status::failed_precondition(
                "the device must be connected, so that its key can be certified; try again when it is",
            )
        })?;
        self.admit_issuer(root.certify(device, key)).await
    }

    fn introduced(&self, device: DeviceId) -> Option<Introduction> {
        self.introduced.lock().unwrap_or_else(PoisonError::into_inner).get(&device).cloned()
    }

    /// Lets a device serve when an operator says so there.
    async fn admit_issuer(&self, certificate: Signed<IssuingCertificate>) -> Result<(), Status> {
        let device = certificate.record.device;
        let endpoints = self.introduced(device).map(|known| known.endpoints);
        let change = move |write: &MasterWrite<'_>, members: &[Member]| {
            write.put_issuer(&certificate)?;
            let known = members.iter().find(|member| member.device == device && !member.released);
            let row = known.map(|known| Member {
                capabilities: known.capabilities.with(Capabilities::SERVE),
                endpoints: endpoints.clone().unwrap_or_else(|| known.endpoints.clone()),
                version: known.version + 1,
                ..known.clone()
            });
            Ok(((), row))
        };
        self.change_members(change).await
    }

    /// Makes a device the replica by the root's certificate of its key: only who holds the recovery kit can have
    /// made that.
    ///
    /// # Errors
    /// The certificate is not this group's or not this device's, another device is the replica, or the
    /// database fails.
    ///
    /// # Cancel safety
    /// As [`Serving::set_replica`].
    pub async fn succeed(&self, device: DeviceId, certificate: &[u8]) -> Result<(), Status> {
        let certificate = self.anchor.verify_issuer(certificate);
        let certificate =
            certificate.map_err(|error| refusal::malformed(format_args!("certificate: {error}")))?;
        if certificate.record.device != device {
            return Err(refusal::malformed("the certificate is another device's"));
        }
        let may_serve =
            self.roster.member(device).is_some_and(|row| row.capabilities.contains(Capabilities::SERVE));
        let issuers = self.master.read(READ_DEADLINE, |read| read.issuers()).await;
        let issuers = issuers.map_err(|error| self.storage_failed(&error))?;
        // Everybody knows the certificates that were ever given, also those of devices that were released since.
        if !may_serve && issuers.contains(&certificate) {
            return Err(Status::permission_denied(
                "this certificate is of before the device was released; have it certified at the server \
                 (`mfpsync replication set DEVICE --kit FILE`)",
            ));
        }
        let standing = self.replicating.standing().map(|standing| standing.set);
        let set = standing.filter(|set| set.device == device);
        self.set_replica(set.unwrap_or(Replication { device, durability: Durability::Async })).await?;
        self.admit_issuer(certificate).await
    }

    /// Makes the addresses under which this server can be reached known to all devices.
    ///
    /// # Errors
    /// The database fails.
    ///
    /// # Cancel safety
    /// As [`Serving::enrol`].
    pub async fn advertise(&self, endpoints: Vec<String>) -> Result<(), Status> {
        let own = self.issuing.device();
        if self.roster.member(own).is_none_or(|row| row.endpoints == endpoints) {
            return Ok(());
        }
        self.change_row(own, move |row| Member { endpoints: endpoints.clone(), ..row }).await.map(drop)
    }
}
