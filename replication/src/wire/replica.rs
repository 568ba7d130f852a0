//! What server and replica say to each other, to and from its messages.

use mfpsync_proto::replica as wire;
use mfpsync_proto::replica::from_replica::Message as From;
use mfpsync_proto::replica::to_replica::Message as To;
use mfpsync_proto::{PROTOCOL_VERSION, PROTOCOL_VERSION_MIN};
use mfpsync_storage::model::{ContentHash, GroupId};
use mfpsync_storage::physical::{PageDigest, PageNumber, Position};

use super::{group, record};
use crate::error::WireError;
use crate::stream::{FromReplica, RANGE_PAGES, RANGES, Reached, ToReplica};

/// Pages named in one message, at the most.
const NAMED_PAGES: usize = 4_096;

/// Writes what the server says.
#[must_use]
pub fn to_replica_to_wire(message: ToReplica) -> wire::ToReplica {
    let message = match message {
        ToReplica::Compare { first } => To::Compare(wire::Compare { first: first.0 }),
        ToReplica::CompareEach { ranges } => {
            To::CompareEach(wire::CompareEach { ranges: ranges.iter().map(|page| page.0).collect() })
        }
        ToReplica::Part { attempt, number, begins, beside, packed } => {
            To::Part(wire::Part { attempt, number, begins, beside, packed: packed.into() })
        }
        ToReplica::Prove { proof, position } => {
            To::Prove(wire::Prove { proof, position: position.encode().into() })
        }
        ToReplica::Head(position) => To::Head(wire::Head { position: position.encode().into() }),
        ToReplica::TakeOver => To::TakeOver(wire::TakeOver {}),
    };
    wire::ToReplica { message: Some(message) }
}

/// Reads what the server says; none for a message this build does not know, which a newer server sends
/// only where it may be passed over.
///
/// # Errors
/// Not well-formed.
pub fn to_replica_from_wire(message: wire::ToReplica) -> Result<Option<ToReplica>, WireError> {
    let Some(message) = message.message else { return Ok(None) };
    Ok(Some(match message {
        To::Compare(compare) => ToReplica::Compare { first: page(compare.first)? },
        To::CompareEach(each) => {
            if each.ranges.len() > RANGES as usize {
                return Err(WireError::Contradiction("more ranges than can be asked for"));
            }
            ToReplica::CompareEach { ranges: each.ranges.into_iter().map(page).collect::<Result<_, _>>()? }
        }
        To::Part(part) => ToReplica::Part {
            attempt: part.attempt,
            number: part.number,
            begins: part.begins,
            beside: part.beside,
            packed: part.packed.into(),
        },
        To::Prove(prove) => ToReplica::Prove {
            proof: prove.proof,
            position: position(&prove.position)?.ok_or(WireError::Missing("position"))?,
        },
        To::TakeOver(wire::TakeOver {}) => ToReplica::TakeOver,
        To::Head(head) => ToReplica::Head(position(&head.position)?.ok_or(WireError::Missing("position"))?),
    }))
}

/// Writes what a replica of `group` says.
#[must_use]
pub fn from_replica_to_wire(group: GroupId, message: FromReplica) -> wire::FromReplica {
    let record =
        |position: Option<Position>| position.map(|position| position.encode()).unwrap_or_default().into();
    let message = match message {
        FromReplica::Stands { position, pages } => From::Stands(wire::Stands {
            group_id: group.0.to_vec().into(),
            position: record(position),
            pages,
            protocol_min: PROTOCOL_VERSION_MIN,
            protocol_max: PROTOCOL_VERSION,
        }),
        FromReplica::Ranges(digests) => {
            let digests: Vec<u8> = digests.iter().flat_map(|digest| digest.to_bytes()).collect();
            From::Ranges(wire::Ranges { digests: digests.into() })
        }
        FromReplica::Each(ranges) => {
            let bytes = |range: &Vec<u64>| {
                range.iter().flat_map(|hash| hash.to_be_bytes()).collect::<Vec<u8>>().into()
            };
            From::Each(wire::Each { hashes: ranges.iter().map(bytes).collect() })
        }
        FromReplica::Taken { number, reached } => From::Taken(match reached {
            Reached::End => wire::Taken { number, at_end: true, ..wire::Taken::default() },
            Reached::Elsewhere(position) => wire::Taken { number, at_end: false, position: record(position) },
        }),
        FromReplica::Differs { pages } => {
            From::Differs(wire::Differs { pages: pages.iter().map(|page| page.0).collect() })
        }
        FromReplica::Proven { proof, content } => From::Proven(match content {
            Ok(content) => wire::Proven {
                proof,
                content: content.hash.to_vec().into(),
                items: content.items,
                wrong: String::new(),
            },
            Err(wrong) => wire::Proven { proof, wrong, ..wire::Proven::default() },
        }),
    };
    wire::FromReplica { message: Some(message) }
}

/// Reads what a replica says; none for a message this build does not know.
///
/// # Errors
/// Not well-formed.
pub fn from_replica_from_wire(message: wire::FromReplica) -> Result<Option<FromReplica>, WireError> {
    let Some(message) = message.message else { return Ok(None) };
    Ok(Some(match message {
        From::Stands(stands) => {
            FromReplica::Stands { position: position(&stands.position)?, pages: stands.pages }
        }
        From::Ranges(ranges) => {
            let (digests, rest) = ranges.digests.as_chunks::<16>();
            if !rest.is_empty() || digests.len() > RANGES as usize {
                return Err(WireError::Contradiction("digests of other ranges than were asked for"));
            }
            FromReplica::Ranges(digests.iter().map(|bytes| PageDigest::from_bytes(*bytes)).collect())
        }
        From::Each(each) => {
            let hashes = each.hashes.iter().take(RANGES as usize).map(|bytes| {
                let hashes = bytes.as_chunks::<8>().0.iter().take(RANGE_PAGES as usize);
                hashes.map(|hash| u64::from_be_bytes(*hash)).collect()
            });
            FromReplica::Each(hashes.collect())
        }
        From::Taken(taken) => {
            let elsewhere = || Ok::<_, WireError>(Reached::Elsewhere(position(&taken.position)?));
            let reached = if taken.at_end { Reached::End } else { elsewhere()? };
            FromReplica::Taken { number: taken.number, reached }
        }
        From::Differs(differs) => {
            if differs.pages.len() > NAMED_PAGES {
                return Err(WireError::Contradiction("more pages than a part has"));
            }
            FromReplica::Differs { pages: differs.pages.into_iter().map(page).collect::<Result<_, _>>()? }
        }
        From::Proven(proven) => {
            let hash = proven.content.as_ref().try_into();
            let content = match (hash, proven.wrong.is_empty()) {
                (Ok(hash), true) => Ok(ContentHash { hash, items: proven.items }),
                _ => Err(proven.wrong),
            };
            FromReplica::Proven { proof: proven.proof, content }
        }
    }))
}

/// The group a replica's first message names, and the protocol versions it speaks.
///
/// # Errors
/// Not its first message.
pub fn replica_of(message: &wire::FromReplica) -> Result<(GroupId, u32, u32), WireError> {
    match &message.message {
        Some(From::Stands(stands)) => {
            Ok((group(&stands.group_id)?, stands.protocol_min, stands.protocol_max))
        }
        _ => Err(WireError::Missing("where the copy stands")),
    }
}

fn page(number: u32) -> Result<PageNumber, WireError> {
    if number == 0 { Err(WireError::Contradiction("page 0")) } else { Ok(PageNumber(number)) }
}

fn position(bytes: &[u8]) -> Result<Option<Position>, WireError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    record("position", Position::decode(bytes)).map(Some)
}
