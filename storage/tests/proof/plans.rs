//! What readers and the writer ask most often is answered by an index, never by a scan that grows.
