//! The library's errors and the server's statuses, in our words.

use mfpsync_backup::smb::helper::Failure;
use mfpsync_backup::store::{Breach, Kind};
use smb2::types::status::NtStatus;
use smb2::{Error, ErrorKind};

/// Statuses that the library has no word for.
///
/// **Source**: \[MS-ERREF\] 2.3.1.
const QUOTA_EXCEEDED: NtStatus = NtStatus(0xc000_0044);
const WRITE_PROTECTED: NtStatus = NtStatus(0xc000_00a2);

/// What the caller has to know of an error.
pub(crate) fn failure(error: Error) -> Failure {
    let status = error.status();
    let kind = match error {
        Error::ConnectFailed { .. } => Kind::Unreachable,
        _ => status.and_then(of_status).unwrap_or(of_kind(error.kind())),
    };
    Failure { kind, number: status.map(|NtStatus(status)| status.cast_signed()) }
}

/// What a status says more precisely than the library's kind of it.
fn of_status(status: NtStatus) -> Option<Kind> {
    Some(match status {
        NtStatus::BAD_NETWORK_NAME => Kind::NoSuchShare,
        WRITE_PROTECTED | NtStatus::CANNOT_DELETE => Kind::Denied,
        QUOTA_EXCEEDED | NtStatus::FILE_SYSTEM_LIMITATION => Kind::Full,
        NtStatus::DELETE_PENDING
        | NtStatus::REQUEST_NOT_ACCEPTED
        | NtStatus::INSUFFICIENT_RESOURCES
        | NtStatus::INSUFF_SERVER_RESOURCES => Kind::Busy,
        NtStatus::FILE_CLOSED | NtStatus::CANCELLED => Kind::Lost,
        _ => return None,
    })
}

fn of_kind(kind: ErrorKind) -> Kind {
    match kind {
        ErrorKind::AuthRequired => Kind::Auth,
        ErrorKind::GuestSessionRefused => Kind::Guest,
        ErrorKind::SigningRequired => Kind::Policy(Breach::Signing),
        ErrorKind::AccessDenied => Kind::Denied,
        ErrorKind::NotFound => Kind::NotFound,
        ErrorKind::AlreadyExists => Kind::Exists,
        ErrorKind::SharingViolation => Kind::Busy,
        ErrorKind::IsADirectory | ErrorKind::NotADirectory => Kind::WrongType,
        ErrorKind::DiskFull => Kind::Full,
        ErrorKind::ConnectionLost | ErrorKind::SessionExpired => Kind::Lost,
        ErrorKind::TimedOut => Kind::Timeout,
        ErrorKind::InvalidName => Kind::InvalidName,
        ErrorKind::SignatureInvalid => Kind::Altered,
        _ => Kind::Other,
    }
}
