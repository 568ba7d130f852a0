//! What a device says after a change of reign.

use bytes::Bytes;
use mfpsync_proto::sync;
use mfpsync_storage::model::Held;

use super::{epoch, epoch_to_wire, group, record};
use crate::error::WireError;
use crate::message::Report;

/// Reads what a device holds of the reign before.
///
/// # Errors
/// Not well-formed.
pub fn report_from_wire(report: &sync::ReportRequest) -> Result<Report, WireError> {
    Ok(Report {
        group: group(&report.group_id)?,
        epoch: epoch(report.epoch.clone())?,
        held: record("held changes", Held::decode(&report.held))?,
    })
}

/// Writes what a device holds of the reign before.
#[must_use]
pub fn report_to_wire(report: &Report) -> sync::ReportRequest {
    sync::ReportRequest {
        group_id: Bytes::copy_from_slice(&report.group.0),
        epoch: Some(epoch_to_wire(&report.epoch)),
        held: report.held.encode().into(),
    }
}
