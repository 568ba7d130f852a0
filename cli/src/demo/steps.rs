//! What all stories of the demo share: devices start, found a group, join it, and end.

use std::fs;
use std::net::SocketAddr;
use std::time::Instant;

use data_encoding::HEXLOWER;
use mfpsync_proto::panel::{JoinRequest, OpenPairingRequest, Role};

use super::context_of;
use super::fleet::{COPIER, Fleet};
use super::narrator::{Narrator, took};
use crate::command::role;
use crate::exit::Failure;
use crate::kit::Kit;
use crate::render::pairing;
use crate::secret::Secret;
use crate::secret_file::SecretFile;
use crate::wait;

/// Generated persons at example.com.
pub(super) const ADDRESS_LIST: &[u8] = include_bytes!("../../../tests/samples/address-list.csv");

/// Starts a device.
///
/// # Errors
/// It does not answer in time.
pub(super) async fn start(
    narrator: &Narrator,
    fleet: &mut Fleet,
    at: usize,
    dial_only: Option<SocketAddr>,
) -> Result<(), Failure> {
    let began = Instant::now();
    let pid = fleet.start(at, dial_only).await?;
    let name = fleet.device(at)?.name;
    narrator.say(&format!("{name} is ready after {} (process {pid})", took(began.elapsed())))
}

/// Founds the group, with copier-1 as its server; returns its recovery kit.
///
/// # Errors
/// The daemon's refusal, or the kit cannot be written.
pub(super) async fn found_group(narrator: &Narrator, fleet: &Fleet) -> Result<Kit, Failure> {
    narrator.chapter("A group with copier-1 as its server")?;
    let sockets = &fleet.device(COPIER)?.sockets;
    let began = Instant::now();
    let kit_path = fleet.directory().join("recovery-kit.age");
    let file = SecretFile::reserve(&kit_path)?;
    let passphrase = passphrase()?;
    let prepared = role::prepare(sockets, "Second floor", &passphrase).await?;
    file.fill(&prepared.recovery_kit)?;
    role::found(sockets, prepared.group_id).await?;
    role::serve(sockets, true).await?;
    role::reach(&context_of(narrator, sockets.clone()), Role::ServerClient).await?;
    narrator.say(&format!("copier-1 serves the group \"Second floor\" after {}", took(began.elapsed())))?;
    narrator.say(&format!(
        "recovery kit written: {} ({} bytes, encrypted)",
        kit_path.display(),
        prepared.recovery_kit.len()
    ))?;
    Ok(Kit { text: Secret::new(prepared.recovery_kit), passphrase })
}

/// Fresh for every demo and never shown: the kit goes with the demo's files.
fn passphrase() -> Result<Secret, Failure> {
    use std::io::Read;
    let mut random = [0; 16];
    fs::File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut random))
        .map_err(|error| Failure::Failed(format!("read random bytes: {error}")))?;
    Ok(Secret::new(HEXLOWER.encode(&random)))
}

/// Opens pairing at `server`; returns the code it shows.
///
/// # Errors
/// The daemon's refusal.
pub(super) async fn pairing_code(
    narrator: &Narrator,
    fleet: &Fleet,
    server: usize,
) -> Result<String, Failure> {
    let server = fleet.device(server)?;
    let mut panel = server.sockets.panel().await?;
    let pairing = server.sockets.call(panel.open_pairing(OpenPairingRequest {})).await?;
    narrator.say(&format!("{} shows the code {}", server.name, pairing::spaced(&pairing.code)))?;
    Ok(pairing.code)
}

/// Has the device at `at` join `server`, which it reaches at `address`, and waits until it has everything.
///
/// # Errors
/// The daemon's refusal, or the group's data does not arrive in time.
pub(super) async fn join(
    narrator: &Narrator,
    fleet: &Fleet,
    server: usize,
    at: usize,
    address: SocketAddr,
) -> Result<(), Failure> {
    let code = pairing_code(narrator, fleet, server).await?;
    let device = fleet.device(at)?;
    let began = Instant::now();
    let request = JoinRequest { address: address.to_string(), code, ..JoinRequest::default() };
    device.sockets.call(device.sockets.panel().await?.join(request)).await?;
    let joined = began.elapsed();
    wait::until(&device.sockets, "arrival of the group's data", wait::link_reached).await?;
    narrator.say(&format!(
        "{} joined at {address} in {} and is current after {}",
        device.name,
        took(joined),
        took(began.elapsed())
    ))
}

/// Ends every daemon that runs, the last first.
///
/// # Errors
/// One of them did not end cleanly.
pub(super) async fn end(narrator: &Narrator, fleet: &mut Fleet) -> Result<(), Failure> {
    narrator.chapter("The end")?;
    let mut clean = true;
    for at in (0..fleet.size()).rev() {
        let began = Instant::now();
        let Some(status) = fleet.stop(at).await? else { continue };
        let code = status.code();
        clean &= code == Some(0);
        let ended =
            code.map_or_else(|| "without an exit code".to_owned(), |code| format!("with exit code {code}"));
        narrator.say(&format!("{} ended {ended} after {}", fleet.device(at)?.name, took(began.elapsed())))?;
    }
    fleet.stop_file_server().await;
    if !clean {
        return Err(Failure::Failed("a daemon did not end cleanly".to_owned()));
    }
    narrator.say(&format!("the whole story took {}", took(narrator.elapsed())))
}
