//! The stores of a task: what they promise, through every kind of end.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "stores/batched.rs"]
mod batched;
#[path = "stores/key_value.rs"]
mod key_value;
#[path = "stores/life.rs"]
mod life;
#[path = "stores/model.rs"]
mod model;
#[path = "stores/restore.rs"]
mod restore;
#[path = "stores/rig.rs"]
mod rig;
#[path = "stores/standby.rs"]
mod standby;
#[path = "stores/timestamped.rs"]
mod timestamped;
