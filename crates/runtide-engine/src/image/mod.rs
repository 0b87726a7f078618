//! Images: their names, credentials for their registries, what a build is sent, what the engine reports of them and of the work on
//! them, and whether an archive is whole.

mod archive;
mod context;
mod credentials;
mod description;
mod entry;
pub mod failure;
mod helper;
mod home;
mod ignore;
mod named;
mod reference;
mod running;
mod upload;

pub use self::{
    archive::Checked,
    context::{Context, Rules},
    credentials::{ClientConfig, RegistryAuth, config_header},
    description::{Description, list},
    home::Homes,
    named::{checked, named, path_of, tag_named, unmistakable},
    reference::{Malformed, Name, Reference},
    running::{Goal, Running, uploaded},
    upload::{Upload, as_read_error},
};
