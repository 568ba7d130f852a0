//! What the measurements stand on: processes, targets, load, figures. Measures nothing itself.

pub(crate) mod copy;
pub(crate) mod device;
pub(crate) mod echo;
pub(crate) mod etcd;
pub(crate) mod litestream;
pub(crate) mod load;
pub(crate) mod metrics;
pub(crate) mod paced;
pub(crate) mod process;
pub(crate) mod pusher;
pub(crate) mod quantiles;
pub(crate) mod redis;
pub(crate) mod report;
pub(crate) mod sqld;
pub(crate) mod sqlite;
pub(crate) mod stats;
pub(crate) mod wire;
pub(crate) mod workload;
