//! The communication log in the words of the API.

use mfpsync_proto::monitor as wire;
use mfpsync_storage::model::DeviceId;
use tonic::Status;

use crate::communication::{Code, Entry, Filter, Level};
use crate::device::Device;

/// Entries of a page, unless said, and at the most.
const PAGE: u32 = 100;
const PAGE_MOST: u32 = 1_000;

/// What a request asks for.
pub(super) fn filter(device: &Device, request: &wire::CommunicationsRequest) -> Result<Filter, Status> {
    let code = |name: &String| {
        Code::from_name(name).ok_or_else(|| {
            Status::invalid_argument(format!("no code `{name}`; they are listed in docs/operations.md"))
        })
    };
    Ok(Filter {
        level: level(request.level)?,
        codes: request.codes.iter().map(code).collect::<Result<_, _>>()?,
        peers: peers(device, &request.peer)?,
        since: request.since_unix_millis,
        until: Some(request.until_unix_millis).filter(|until| *until > 0),
    })
}

fn level(level: i32) -> Result<Option<Level>, Status> {
    match wire::Level::try_from(level) {
        Ok(wire::Level::Unspecified) => Ok(None),
        Ok(wire::Level::Info) => Ok(Some(Level::Info)),
        Ok(wire::Level::Notice) => Ok(Some(Level::Notice)),
        Ok(wire::Level::Warning) => Ok(Some(Level::Warning)),
        Ok(wire::Level::Error) => Ok(Some(Level::Error)),
        Err(_) => Err(Status::invalid_argument("no such level")),
    }
}

/// An id need not be known any more; of a name, every device that has it is meant.
fn peers(device: &Device, peer: &str) -> Result<Vec<DeviceId>, Status> {
    if peer.is_empty() {
        return Ok(Vec::new());
    }
    if let Some(id) = DeviceId::from_hex(peer) {
        return Ok(vec![id]);
    }
    let members = device.roster.members();
    let named: Vec<_> =
        members.iter().filter(|member| member.name == peer).map(|member| member.device).collect();
    if named.is_empty() {
        return Err(Status::invalid_argument(
            "no device of the group has this name; give its id of 32 hex digits, or see the device list",
        ));
    }
    Ok(named)
}

/// How many entries a page has.
pub(super) fn limit(asked: u32) -> Result<usize, Status> {
    match asked {
        0 => Ok(PAGE as usize),
        1..=PAGE_MOST => Ok(asked as usize),
        _ => Err(Status::invalid_argument(format!("a page has at most {PAGE_MOST} entries"))),
    }
}

/// An entry, with the name its device has now.
pub(super) fn entry(device: &Device, entry: Entry) -> wire::Communication {
    let member = entry.peer.and_then(|peer| device.roster.member(peer));
    wire::Communication {
        number: entry.number,
        first_unix_millis: entry.first,
        last_unix_millis: entry.last,
        times: entry.times,
        level: match entry.code.level() {
            Level::Info => wire::Level::Info,
            Level::Notice => wire::Level::Notice,
            Level::Warning => wire::Level::Warning,
            Level::Error => wire::Level::Error,
        }
        .into(),
        code: entry.code.as_str().to_owned(),
        text: entry.code.text().to_owned(),
        peer_device_id: entry.peer.map(|peer| peer.to_string()).unwrap_or_default(),
        peer_name: member.map(|member| member.name.clone()).unwrap_or_default(),
        address: entry.address,
        reason: entry.reason,
        counts: entry.counts.into_iter().collect(),
    }
}
