//! The joiner's side of pairing: one call that ends with a verified membership, or with nothing.

use std::time::Duration;

use mfpsync_proto::enroll::enroll_client::EnrollClient;
use mfpsync_proto::enroll::{ConfirmReply, ConfirmRequest, StartReply, StartRequest};
use mfpsync_proto::sync::{Reason, Refusal};
use mfpsync_proto::{PROTOCOL_VERSION, limit};
use mfpsync_storage::model::{
    Capabilities, DeviceId, GroupId, IssuingCertificate, Member, Promotion, PublicKey, Signed,
};
use thiserror::Error;
use tokio::time::timeout;
use tonic::{Code as GrpcCode, Status};

use super::TRIES_LEFT;
use crate::authority::{TrustAnchor, VerifyError};
use crate::identity::Identity;
use crate::net::dial::{DialError, EnrollLink, dial_enroll};
use crate::pairing::{Code, Joiner, PairingError};
use crate::refusal::reason_of;
use crate::tls::ClientTls;

/// A verified membership; nothing in it was taken on trust.
#[derive(Debug, Clone)]
pub struct Joined {
    /// What to believe from now on.
    pub anchor: TrustAnchor,
    /// The group's name.
    pub group_name: String,
    /// The server that admitted this device.
    pub server: DeviceId,
    /// All issuing certificates.
    pub issuers: Vec<Signed<IssuingCertificate>>,
    /// All membership rows, this device's and the server's among them.
    pub members: Vec<Signed<Member>>,
    /// All promotion records, oldest first.
    pub lineage: Vec<Signed<Promotion>>,
}

/// Why a device did not join, in the words of what a person can do about it.
#[derive(Debug, Error)]
pub enum JoinError {
    /// The code was mistyped, or somebody is between the two devices.
    #[error("wrong pairing code")]
    WrongCode {
        /// How many tries the code has left, if the server said so.
        tries_left: Option<u32>,
    },
    /// Pairing is not open at the server, or its code was used.
    #[error("pairing is not open at the server")]
    Closed,
    /// The tries are used up; open pairing again at the server.
    #[error("too many tries; open pairing again at the server")]
    TooManyTries,
    /// The code has expired; open pairing again at the server.
    #[error("pairing code has expired; open pairing again at the server")]
    TooLate,
    /// The server cannot be reached.
    #[error("server cannot be reached: {0}")]
    Unreachable(#[source] DialError),
    /// No answer within the deadline.
    #[error("no answer in time")]
    Timeout,
    /// The server did not prove that it knows the code: nothing it sent was adopted.
    #[error("server did not prove to know the pairing code")]
    Impostor,
    /// What the server sent does not verify against the group's root key.
    #[error("membership does not verify: {0}")]
    Membership(#[from] VerifyError),
    /// The server answered something that makes no sense.
    #[error("malformed answer: {0}")]
    Malformed(&'static str),
    /// The server refused for another reason.
    #[error("refused: {}", .0.text)]
    Refused(Box<Refusal>),
    /// This device's own key is not usable.
    #[error("own key is not usable")]
    Identity,
}

impl JoinError {
    /// A stable word for the communication log.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::WrongCode { .. } => "pairing-code",
            Self::Closed => "pairing-closed",
            Self::TooManyTries => "pairing-tries",
            Self::TooLate => "pairing-expired",
            Self::Unreachable(_) => "unreachable",
            Self::Timeout => "timed-out",
            Self::Impostor | Self::Membership(_) => "impostor",
            Self::Malformed(_) => "malformed",
            Self::Refused(_) => "refused",
            Self::Identity => "own-key",
        }
    }
}

/// Joins the group of the server at `address` (`host:port`) with the code it shows.
///
/// # Errors
/// [`JoinError`]. After `Timeout` or `Unreachable` the server may have admitted this device all the
/// same; joining again with a new code repairs that.
///
/// # Cancel safety
/// Dropping the future abandons the pairing; a try is spent.
pub async fn join(
    address: &str,
    code: &Code,
    identity: &Identity,
    name: &str,
    deadline: Duration,
) -> Result<Joined, JoinError> {
    let whole = async {
        let tls = ClientTls::enroll(identity).map_err(|_| JoinError::Identity)?;
        let link = dial_enroll(address, &tls, deadline).await.map_err(not_reached)?;
        pair(link, code, identity, name).await
    };
    timeout(deadline, whole).await.map_err(|_| JoinError::Timeout)?
}

async fn pair(link: EnrollLink, code: &Code, identity: &Identity, name: &str) -> Result<Joined, JoinError> {
    let mut client = EnrollClient::new(link.channel).max_decoding_message_size(limit::MESSAGE_BYTES);
    let joiner = Joiner::start(code, identity.device(), identity.public_key(), name);
    let started = client.start(StartRequest {
        spake: joiner.message().to_vec().into(),
        public_key: identity.public_key().0.to_vec().into(),
        device_id: identity.device().0.to_vec().into(),
        device_name: name.to_owned(),
        protocol: PROTOCOL_VERSION,
    });
    let started = started.await.map_err(not_paired)?.into_inner();
    let server = server(&started, link.server)?;
    let proof = joiner
        .answer(&started.spake, server, link.server, &link.exporter)
        .map_err(|_: PairingError| JoinError::Malformed("key exchange"))?;
    let confirm = ConfirmRequest { session: started.session, proof: proof.proof().to_vec().into() };
    let confirmed = client.confirm(confirm).await.map_err(not_paired)?.into_inner();
    if !proof.accepts(&confirmed.proof) {
        return Err(JoinError::Impostor);
    }
    let joined = verify(&confirmed, server)?;
    check_rows(&joined.members, identity, server, link.server)?;
    Ok(joined)
}

fn server(started: &StartReply, proven: PublicKey) -> Result<DeviceId, JoinError> {
    // The transcript would tell as well; here the reason is still known.
    if PublicKey::from_slice(&started.public_key) != Some(proven) {
        return Err(JoinError::Impostor);
    }
    DeviceId::from_slice(&started.device_id).ok_or(JoinError::Malformed("device id"))
}

fn verify(reply: &ConfirmReply, server: DeviceId) -> Result<Joined, JoinError> {
    let anchor = TrustAnchor {
        group: GroupId::from_slice(&reply.group_id).ok_or(JoinError::Malformed("group id"))?,
        root: PublicKey::from_slice(&reply.root_key).ok_or(JoinError::Malformed("root key"))?,
    };
    let issuers =
        reply.issuers.iter().map(|bytes| anchor.verify_issuer(bytes)).collect::<Result<Vec<_>, _>>()?;
    let members = reply.members.iter().map(|bytes| anchor.verify_member(bytes, &issuers));
    let members = members.collect::<Result<Vec<_>, _>>()?;
    let lineage = reply.lineage.iter().map(|bytes| anchor.verify_promotion(bytes, &issuers));
    let lineage = lineage.collect::<Result<Vec<_>, _>>()?;
    let group_name = reply.group_name.clone();
    Ok(Joined { anchor, group_name, server, issuers, members, lineage })
}

/// Without its own row a device would be refused next time; without the server's it could not
/// recognise the server.
fn check_rows(
    members: &[Signed<Member>],
    identity: &Identity,
    server: DeviceId,
    server_key: PublicKey,
) -> Result<(), JoinError> {
    let admitted = |device, key, needed| {
        members.iter().map(|signed| &signed.record).any(|member| {
            member.device == device
                && member.public_key == key
                && !member.released
                && member.capabilities.contains(needed)
        })
    };
    if !admitted(identity.device(), identity.public_key(), Capabilities(0)) {
        return Err(JoinError::Malformed("membership without this device"));
    }
    if !admitted(server, server_key, Capabilities::SERVE) {
        return Err(JoinError::Malformed("membership without the server"));
    }
    Ok(())
}

fn not_reached(error: DialError) -> JoinError {
    match error {
        DialError::NotOffered => JoinError::Closed,
        DialError::Timeout => JoinError::Timeout,
        DialError::Refused(refusal, _) => JoinError::Refused(refusal),
        error => JoinError::Unreachable(error),
    }
}

fn not_paired(status: Status) -> JoinError {
    let Some(refusal) = reason_of(&status) else {
        return JoinError::Unreachable(DialError::Unreachable(std::io::Error::other(status)));
    };
    match refusal.reason() {
        Reason::PairingCode => JoinError::WrongCode { tries_left: tries_left(&status) },
        Reason::PairingTries => JoinError::TooManyTries,
        Reason::PairingClosed if status.code() == GrpcCode::DeadlineExceeded => JoinError::TooLate,
        Reason::PairingClosed => JoinError::Closed,
        _ => JoinError::Refused(Box::new(refusal)),
    }
}

fn tries_left(status: &Status) -> Option<u32> {
    status.metadata().get(TRIES_LEFT)?.to_str().ok()?.parse().ok()
}
