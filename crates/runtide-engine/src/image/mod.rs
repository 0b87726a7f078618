//! Images: their names, credentials for their registries, what a build is sent, and whether an archive is whole.

mod archive;
mod context;
mod credentials;
mod entry;
mod helper;
mod ignore;
mod reference;

pub use self::{
    archive::Checked,
    context::Context,
    credentials::{ClientConfig, RegistryAuth, config_header},
    reference::{Malformed, Name, Reference},
};
