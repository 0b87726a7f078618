//! Creating over the wire: everything that the description names must exist, or nothing is created.

use std::net::SocketAddr;

use runtide_core::{
    Error, ErrorKind, InstanceId, Result,
    manager::{MountSource, NetworkAttachment},
};

use super::{Blueprint, State};
use crate::fault::Call;

/// The description of an instance to create, as it travels over the wire.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) design: Blueprint,
    /// `None`: the image's own.
    pub(crate) entrypoint: Option<Vec<String>>,
    /// `None`: the image's own.
    pub(crate) user: Option<String>,
    pub(crate) networks: Vec<NetworkAttachment>,
}

impl State {
    pub(crate) fn provision(&mut self, order: Order) -> Result<InstanceId> {
        let Order { mut design, entrypoint, user, networks } = order;
        self.check_networks(&networks)?;
        for mount in &design.mounts {
            if let MountSource::Volume(volume) = &mount.source {
                self.volume(volume, Call::Create)?;
            }
        }
        let image = design.image.as_ref().map(|image| self.image_or_missing(image, Call::Create)).transpose()?;
        let (mut own_entrypoint, mut own_user) = (Vec::new(), None);
        if let Some(image) = image {
            let own_env = image.env.iter().flatten().filter_map(|pair| pair.split_once('='));
            for (key, value) in own_env {
                design.env.entry(key.to_owned()).or_insert_with(|| value.to_owned());
            }
            if entrypoint.is_none() && design.command.is_empty() {
                design.command = image.command.unwrap_or_default();
            }
            (own_entrypoint, own_user) = (image.entrypoint.unwrap_or_default(), image.user);
        }
        let mut command = entrypoint.unwrap_or(own_entrypoint);
        command.append(&mut design.command);
        design.command = command;
        if let Some(user) = user.or(own_user) {
            design.user = user;
        }
        self.pick_ports(&mut design)?;
        let id = self.create(design)?;
        for NetworkAttachment { network, address, .. } in &networks {
            if let Err(error) = self.connect_network(network, &id, *address) {
                let _ = self.remove(&id, true);
                return Err(error);
            }
        }
        Ok(id)
    }

    /// Chooses the host port of a published port 0.
    fn pick_ports(&mut self, design: &mut Blueprint) -> Result<()> {
        let used: Vec<u16> = self
            .records
            .values()
            .flat_map(|record| &record.design.ports)
            .flat_map(published)
            .map(SocketAddr::port)
            .collect();
        let mut free = (49_152..=u16::MAX).filter(|port| !used.contains(port));
        for host in design.ports.iter_mut().flat_map(|port| &mut port.published).filter(|host| host.port() == 0) {
            let port = free.next().ok_or_else(|| {
                Error::new(ErrorKind::Conflict, Call::Create.operation(), "no port of the host is free")
            })?;
            host.set_port(port);
        }
        Ok(())
    }
}

fn published(port: &runtide_core::Port) -> impl Iterator<Item = &SocketAddr> {
    port.published.iter()
}
