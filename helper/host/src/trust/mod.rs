//! What may be opened, executed or plugged in, and where its description may come from: `docs/trust.md`.
//!
//! A domain's metadata is written by whoever may edit the domain, and comes along from other hosts. So
//! nothing in it names a host or a device: those come from the command line, from this host's own records
//! or from a file of root's, and pass the lists here.

mod device;
mod file;
mod replug;
mod uri;

pub use device::{DeviceError, check_device};
pub use file::{FileError, check_folder, read_own};
pub(crate) use replug::own_alias;
pub use replug::{Allowed, ReplugError, ReplugFile, default_file};
pub use uri::{UriError, UriOrigin, check_uri};
