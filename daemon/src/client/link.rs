//! One connection to a server: who it must be, the calls on it, and what their failures mean.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use mfpsync_proto::limit;
use mfpsync_proto::sync as wire;
use mfpsync_proto::sync::sync_client::SyncClient;
use mfpsync_replication::message::{FollowEvent, Greeting, Hello, RefusalReason};
use mfpsync_replication::round::Failure;
use mfpsync_replication::wire as convert;
use mfpsync_storage::model::{Capabilities, DeviceId, IssuingCertificate, Member, PublicKey, Signed};
use thiserror::Error;
use tonic::Status;
use tonic::transport::Channel;

use crate::authority::{TrustAnchor, VerifyError};
use crate::db::READ_DEADLINE;
use crate::device::Device;
use crate::net::dial::{DialError, dial_any};
use crate::refusal;
use crate::tls::ClientTls;

/// Why something on a connection did not work.
#[derive(Debug, Error)]
pub(crate) enum LinkError {
    /// No member with the capability to serve is known.
    #[error("no server of the group is known")]
    NoServer,
    /// There is no connection.
    #[error("dial: {0}")]
    Dial(#[from] DialError),
    /// The call was refused or failed.
    #[error("call: {}", .0.message())]
    Call(#[from] Status),
    /// The own database.
    #[error("own database: {0}")]
    Storage(#[from] mfpsync_storage::Error),
    /// The own key.
    #[error("own key is not usable")]
    Identity,
}

impl LinkError {
    /// Whether the server says that this device was released.
    pub(super) fn is_released(&self) -> bool {
        matches!(self, Self::Dial(error) if error.reason() == Some(wire::Reason::Released))
    }
}

/// The group's servers and where they may be.
pub(crate) struct Servers {
    members: Vec<(DeviceId, PublicKey, Vec<String>)>,
    /// The keys of all members but this device: one of them is expected at an address nobody has named.
    others: Vec<PublicKey>,
    /// The server of the reign known last.
    present: Option<DeviceId>,
    /// Where to dial instead of the addresses the members name.
    instead: Vec<String>,
}

impl Servers {
    /// As the device knows them.
    pub(crate) async fn of(device: &Device) -> mfpsync_storage::Result<Self> {
        let lineage = device.own.db().read(READ_DEADLINE, |read| read.lineage()).await?;
        let rows: Vec<_> = device
            .roster
            .members()
            .into_iter()
            .filter(|member| !member.released)
            // It is dialled where it listens, if it serves.
            .filter(|member| member.device != device.identity.device() || device.server.load().is_some())
            .collect();
        let others = rows.iter().map(|member| member.public_key).collect();
        let members = rows
            .into_iter()
            .filter(|member| member.capabilities.contains(Capabilities::SERVE))
            .map(|member| (member.device, member.public_key, member.endpoints.clone()))
            .collect();
        let present = lineage.last().map(|signed| signed.record.device);
        Ok(Self { members, others, present, instead: instead(device) })
    }

    /// Where to dial, the present server's addresses first.
    pub(crate) fn endpoints(&self) -> Vec<String> {
        if !self.instead.is_empty() {
            return self.instead.clone();
        }
        let mut seen = BTreeSet::new();
        let (present, others): (Vec<_>, Vec<_>) =
            self.members.iter().partition(|(device, ..)| Some(*device) == self.present);
        let endpoints = present.into_iter().chain(others).flat_map(|(_, _, endpoints)| endpoints);
        endpoints.filter(|endpoint| seen.insert((*endpoint).clone())).cloned().collect()
    }

    /// Whether hints may be followed: not where the addresses to dial were given.
    pub(super) fn may_be_sought(&self) -> bool {
        self.instead.is_empty()
    }

    /// Whose key is taken at an address: those of the devices which name it, as a machine does before and after
    /// it got a new disk, else any member's. Who of them is the server is proven by its greeting.
    fn expected(&self, endpoint: &str) -> Vec<PublicKey> {
        let names = |endpoints: &[String]| endpoints.iter().any(|known| known == endpoint);
        let named = self.members.iter().filter(|(_, _, endpoints)| names(endpoints));
        let named: Vec<PublicKey> = named.map(|(_, key, _)| *key).collect();
        if named.is_empty() { self.others.clone() } else { named }
    }

    /// Connects to the device at `endpoint`, which must prove its key; the key. What it says is to be taken for
    /// a server's once it has said hello, or where [`Servers::may_serve`]; else it goes through [`hearsay`].
    ///
    /// Where no known device answers it may be one that became the server by an archive and the kit, of which nobody
    /// here has heard: its greeting proves that, or it is an impostor, who has learned numbers and no names.
    pub(super) async fn meet(
        &self,
        device: &Device,
        endpoint: &str,
        deadline: Duration,
    ) -> Result<(Channel, PublicKey), LinkError> {
        match self.connect(device, endpoint, self.expected(endpoint), deadline).await {
            Err(LinkError::Dial(DialError::WrongKey)) => {
                let tls = ClientTls::sync_with_anybody(&device.identity).map_err(|_| LinkError::Identity)?;
                Ok(dial_any(endpoint, &tls, deadline).await?)
            }
            met => met,
        }
    }

    /// Connects to a device that may serve, for calls that are not preceded by a hello.
    pub(crate) async fn dial(
        &self,
        device: &Device,
        endpoint: &str,
        deadline: Duration,
    ) -> Result<Channel, LinkError> {
        let expected = self.expected(endpoint).into_iter().filter(|key| self.may_serve(key)).collect();
        self.connect(device, endpoint, expected, deadline).await.map(|(channel, _)| channel)
    }

    /// Whether the device with this key may serve, as far as is known here.
    pub(super) fn may_serve(&self, key: &PublicKey) -> bool {
        self.members.iter().any(|(_, known, _)| known == key)
    }

    async fn connect(
        &self,
        device: &Device,
        endpoint: &str,
        expected: Vec<PublicKey>,
        deadline: Duration,
    ) -> Result<(Channel, PublicKey), LinkError> {
        if expected.is_empty() {
            return Err(LinkError::NoServer);
        }
        let tls = ClientTls::sync_with_any(&device.identity, expected).map_err(|_| LinkError::Identity)?;
        Ok(dial_any(endpoint, &tls, deadline).await?)
    }
}

/// The configured addresses, or, for a server's own client, those it listens on itself: a name that
/// others resolve need not resolve here.
fn instead(device: &Device) -> Vec<String> {
    let settings = device.settings.now();
    if !settings.dial_only.is_empty() {
        return settings.dial_only.iter().map(ToString::to_string).collect();
    }
    let server = device.server.load();
    let listening = server.iter().flat_map(|server| server.listening.iter());
    listening.map(|address| own_side(*address).to_string()).collect()
}

fn own_side(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

/// The gRPC client on a connection.
pub(super) fn client(channel: Channel) -> SyncClient<Channel> {
    SyncClient::new(channel)
        .max_decoding_message_size(limit::FOLLOW_MESSAGE_BYTES)
        .max_encoding_message_size(limit::MESSAGE_BYTES)
}

/// Says hello and verifies everything the server shows, also that it is the device behind this key that reigns.
pub(crate) async fn greet(
    channel: Channel,
    peer: PublicKey,
    anchor: TrustAnchor,
    hello: &Hello,
) -> Result<Greeting, Failure> {
    let reply =
        client(channel).hello(convert::hello_to_wire(hello)).await.map_err(|status| failed(&status))?;
    let greeting = convert::greeting_from_wire(reply.into_inner()).map_err(|error| {
        tracing::warn!(%error, "read greeting");
        Failure::Malformed
    })?;
    let issuers = verify_membership(anchor, &greeting.issuers, &greeting.members, &[])?;
    for promotion in &greeting.lineage {
        believed(anchor.verify_promotion(&promotion.encode(), &issuers))?;
    }
    // Others know all these records, too.
    let reigns = greeting.lineage.last().map(|last| last.record.device);
    let row = greeting.members.iter().find(|row| row.record.public_key == peer && !row.record.released);
    if row.is_none_or(|row| Some(row.record.device) != reigns) {
        tracing::warn!("who answers as the server is another device");
        return Err(Failure::Impostor);
    }
    Ok(greeting)
}

/// Refuses what a device proves that was released here, unless another server has taken it back since: it may still hold
/// a key that the group certified once.
pub(super) fn not_released(device: &Device, peer: PublicKey, greeting: &Greeting) -> Result<(), Failure> {
    let reigns = greeting.lineage.last().map(|last| last.record.device);
    let back = |known: &Member| {
        let rows = greeting.members.iter().map(|signed| &signed.record);
        rows.into_iter().any(|row| row.device == known.device && !row.released && row.supersedes(known))
    };
    let known = device.roster.members();
    let released = known.iter().filter(|known| known.released);
    let mut meant = released.filter(|known| known.public_key == peer || Some(known.device) == reigns);
    if meant.all(|known| back(known)) {
        return Ok(());
    }
    tracing::warn!("who answers as the server was released from the group");
    Err(Failure::Impostor)
}

/// Reads an event of the follow stream and verifies records in it; none for one this build does not know.
pub(super) fn follow_event(
    anchor: TrustAnchor,
    known: &[Signed<IssuingCertificate>],
    event: wire::FollowEvent,
) -> Result<Option<FollowEvent>, Failure> {
    let event = convert::follow_event_from_wire(event).map_err(|error| {
        tracing::warn!(%error, "read follow event");
        Failure::Malformed
    })?;
    if let Some(FollowEvent::Membership { members, issuers }) = &event {
        verify_membership(anchor, issuers, members, known)?;
    }
    Ok(event)
}

fn verify_membership(
    anchor: TrustAnchor,
    issuers: &[Signed<IssuingCertificate>],
    members: &[Signed<Member>],
    known: &[Signed<IssuingCertificate>],
) -> Result<Vec<Signed<IssuingCertificate>>, Failure> {
    let mut believed_issuers = known.to_vec();
    for issuer in issuers {
        believed_issuers.push(believed(anchor.verify_issuer(&issuer.encode()))?);
    }
    for member in members {
        believed(anchor.verify_member(&member.encode(), &believed_issuers))?;
    }
    Ok(believed_issuers)
}

fn believed<T>(verified: Result<T, VerifyError>) -> Result<T, Failure> {
    verified.map_err(|error| {
        tracing::warn!(%error, "verify what the server shows");
        Failure::Impostor
    })
}

/// What a failed call means to the round. A claim in a refusal still has to be verified.
pub(super) fn failed(status: &Status) -> Failure {
    let refusal = refusal::reason_of(status).and_then(|refusal| convert::refusal_from_wire(&refusal).ok());
    match refusal {
        Some(refusal) => Failure::Refused { refusal: Box::new(refusal), push_back: None },
        None => Failure::Transport,
    }
}

/// Drops a claim that does not verify: an unproven one changes nothing.
pub(super) fn proven(
    failure: Failure,
    anchor: TrustAnchor,
    issuers: &[Signed<IssuingCertificate>],
) -> Failure {
    match failure {
        Failure::Refused { mut refusal, push_back } => {
            refusal.claim = refusal.claim.filter(|claim| anchor.verify_claim(claim, issuers).is_ok());
            Failure::Refused { refusal, push_back }
        }
        other => other,
    }
}

/// What a refusal means that comes from a member which may not serve, as far as is known: nothing, but for a proven
/// claim of another.
pub(super) fn hearsay(failure: Failure) -> Failure {
    match failure {
        Failure::Refused { refusal, push_back }
            if refusal.reason == RefusalReason::Superseded && refusal.claim.is_some() =>
        {
            Failure::Refused { refusal, push_back }
        }
        Failure::Refused { .. } => Failure::Impostor,
        other => other,
    }
}

/// What a failed dial means to the round.
pub(super) fn not_dialled(error: LinkError) -> Failure {
    tracing::debug!(%error, "dial the server");
    match error {
        LinkError::Dial(DialError::WrongKey) => Failure::Impostor,
        LinkError::Dial(DialError::Refused(refusal, _)) => match convert::refusal_from_wire(&refusal) {
            Ok(refusal) => Failure::Refused { refusal: Box::new(refusal), push_back: None },
            Err(_) => Failure::Malformed,
        },
        LinkError::Call(status) => failed(&status),
        LinkError::Dial(_) | LinkError::NoServer | LinkError::Storage(_) | LinkError::Identity => {
            Failure::Transport
        }
    }
}
