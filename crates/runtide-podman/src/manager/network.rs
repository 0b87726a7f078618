//! [`Networks`]: the service's networks, and the containers in them.
//!
//! A network is found by its full id, by its name, or by twelve or more characters of the id, and by nothing else: the service would
//! also take a name for the beginning of another network's id. Containers are in a network by its name, and it is removed by its name:
//! removed by its id, it would be taken from the containers that use it.

mod reply;
mod spec;

use async_trait::async_trait;
use runtide_core::{
    Error, ErrorKind, InstanceId, Result,
    manager::{ConnectOptions, Effect, NetworkId, NetworkInfo, NetworkManager, NetworkSpec},
};
use runtide_engine::{
    Request, create::Creation, is_host_name, is_name, item, items, late::LATEST_ANSWER, shown, subnets,
};
use serde::Deserialize;
use serde_json::json;

pub(super) use self::reply::{Endpoint, Endpoints};
use self::reply::{Member, Network, Removed};
use super::{
    container::{Call, Container},
    objects::NETWORKS,
};
use crate::client::{Client, is_answer};

/// The [`NetworkManager`] of one service.
#[derive(Debug, Clone)]
pub(crate) struct Networks {
    client: Client,
}

impl Networks {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    fn on<'a>(&'a self, operation: &'static str, network: &'a NetworkId) -> Result<On<'a>> {
        On::new(&self.client, operation, network)
    }
}

#[async_trait]
impl NetworkManager for Networks {
    async fn create(&self, spec: &NetworkSpec) -> Result<NetworkId> {
        const OPERATION: &str = "podman.create_network";
        let site = self.client.site(OPERATION);
        let body = spec::Body::new(spec).map_err(|message| {
            site.error(ErrorKind::InvalidInput, message).with_context("network", shown(&spec.name))
        })?;
        let made = create(&self.client, OPERATION, &spec.name, body);
        self.client.within(site, self.client.deadline(), made).await
    }

    async fn remove(&self, network: &NetworkId) -> Result<Effect> {
        let on = self.on("podman.remove_network", network)?;
        on.bounded(remove(on)).await
    }

    async fn list(&self) -> Result<Vec<NetworkInfo>> {
        const OPERATION: &str = "podman.list_networks";
        let site = self.client.site(OPERATION);
        let listed = async {
            let networks = self.client.call(OPERATION, Request::get("/networks/json"), self.client.deadline()).await?;
            let networks: Vec<Network> = items(&self.client, OPERATION, &networks)?;
            let members = members(&self.client, OPERATION).await?;
            Ok(networks.into_iter().map(|network| network.info(&members)).collect())
        };
        self.client.within(site, self.client.deadline(), listed).await
    }

    async fn inspect(&self, network: &NetworkId) -> Result<NetworkInfo> {
        let on = self.on("podman.inspect_network", network)?;
        on.bounded(async {
            let network = on.network().await?;
            Ok(network.info(&members(on.client, on.operation).await?))
        })
        .await
    }

    async fn connect(&self, network: &NetworkId, instance: &InstanceId, options: ConnectOptions) -> Result<Effect> {
        let on = self.on("podman.connect_network", network)?;
        let call = Call::on(&self.client, on.operation, instance)?;
        if let Some(alias) = options.aliases.iter().find(|alias| !is_host_name(alias)) {
            let message = format!("'{}' is not an alias: it is no host name", shown(alias));
            return Err(on.error(ErrorKind::InvalidInput, message));
        }
        on.bounded(connect(on, call, &options)).await
    }

    async fn disconnect(&self, network: &NetworkId, instance: &InstanceId) -> Result<Effect> {
        let on = self.on("podman.disconnect_network", network)?;
        let call = Call::on(&self.client, on.operation, instance)?;
        on.bounded(disconnect(on, call)).await
    }
}

/// One call on one network.
#[derive(Debug, Clone, Copy)]
struct On<'a> {
    client: &'a Client,
    operation: &'static str,
    id: &'a str,
}

impl<'a> On<'a> {
    /// Refuses an id that could be more than an id, since it becomes a part of a path.
    fn new(client: &'a Client, operation: &'static str, network: &'a NetworkId) -> Result<Self> {
        let on = Self { client, operation, id: network.as_str() };
        if is_name(on.id) {
            return Ok(on);
        }
        let message =
            "not the id or name of a network: expected letters, digits, '_', '.', '-', the first a letter or digit";
        Err(client.site(operation).error(ErrorKind::InvalidInput, message).with_context("network", shown(on.id)))
    }

    fn bounded<T>(self, work: impl Future<Output = Result<T>>) -> impl Future<Output = Result<T>> {
        self.client.within(self.client.site(self.operation), self.client.deadline(), work)
    }

    async fn send(self, request: Request) -> Result<bytes::Bytes> {
        let sent = Box::pin(self.client.call(self.operation, request, self.client.deadline())).await;
        sent.map_err(|error| self.located(error))
    }

    fn error(self, kind: ErrorKind, message: impl Into<String>) -> Error {
        self.located(self.client.site(self.operation).error(kind, message))
    }

    fn unsupported(self, reason: impl Into<String>) -> Error {
        let reason = reason.into();
        let error = self.error(ErrorKind::Unsupported, reason.clone());
        error.with_context("feature", "networks_connect").with_context("reason", reason)
    }

    fn located(self, error: Error) -> Error {
        error.with_context("network", self.id)
    }

    /// The network with this very id or name, inspected now.
    async fn network(self) -> Result<Network> {
        let missing = || self.error(ErrorKind::NotFound, "there is no such network");
        let found = self.send(Request::get(format!("/networks/{}/json", self.id))).await;
        let found = found.map_err(|error| match error.message() {
            // The beginnings of two ids.
            message if message.contains("more than one result") => missing(),
            _ => error,
        })?;
        let network: Network = item(self.client, self.operation, &found)?;
        if network.is_named(self.id) { Ok(network) } else { Err(missing()) }
    }

    async fn network_if_present(self) -> Result<Option<Network>> {
        match self.network().await {
            Ok(network) => Ok(Some(network)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Name of the network with this very id or name.
pub(super) async fn name_of(client: &Client, operation: &'static str, network: &str) -> Result<String> {
    let network = NetworkId::from(network);
    Ok(On::new(client, operation, &network)?.network().await?.name)
}

/// Every container with its networks, by one request. An inspection of a network has its members from Podman 5 on only, and no more than
/// those that run.
async fn members(client: &Client, operation: &'static str) -> Result<Vec<Member>> {
    let listed = client.call(operation, Request::get("/containers/json?all=true"), client.deadline()).await?;
    items(client, operation, &listed)
}

async fn create(client: &Client, operation: &'static str, name: &str, mut body: spec::Body<'_>) -> Result<NetworkId> {
    #[derive(Deserialize)]
    struct Made {
        id: String,
    }
    let creation = Creation::new(client, operation, name, &[NETWORKS]);
    body.labels.extend([creation.label()]);
    let request = Request::post("/networks/create").with_json(&body);
    let (of, this) = (client.clone(), creation.clone());
    let creating = async move {
        let made = of.call(operation, request, LATEST_ANSWER).await?;
        let Made { id } = serde_json::from_slice(&made).map_err(|error| of.site(operation).undecodable(error))?;
        // Dropped with the call, it removes the network.
        Ok((id, this.guard()))
    };
    let located = |error: Error| error.with_context("network", name);
    let (id, guard) = creation.run(creating).await.map_err(|error| located(refused(client, operation, error)))?;
    guard.keep();
    Ok(NetworkId::from(id))
}

/// A refusal by its meaning: Podman has a status for a name that is taken, and 500 for all else.
fn refused(client: &Client, operation: &'static str, refusal: Error) -> Error {
    let message = refusal.message();
    let as_kind = |kind| client.site(operation).error(kind, message);
    let has = |words: &[&str]| words.iter().any(|word| message.contains(word));
    if !is_answer(&refusal) {
        return refusal;
    }
    if refusal.kind() == ErrorKind::Conflict {
        return client.site(operation).error(ErrorKind::AlreadyExists, "this name is taken");
    }
    if has(&["already used", "is already being used"]) {
        return as_kind(ErrorKind::Conflict);
    }
    if has(&["unsupported", "not supported", "not yet supported"]) {
        let error = as_kind(ErrorKind::Unsupported);
        return error.with_context("feature", "networks_manage").with_context("reason", message);
    }
    if has(&["conflicts with a valid network mode", "invalid argument", "invalid syntax", "needs at least one subnet"])
    {
        return as_kind(ErrorKind::InvalidInput);
    }
    refusal
}

async fn remove(on: On<'_>) -> Result<Effect> {
    let Some(network) = on.network_if_present().await? else { return Ok(Effect::Unchanged) };
    let in_use = async || {
        let all = members(on.client, on.operation).await?;
        let members = network.members(&all);
        match (members.first(), network.pods(&all).first()) {
            (Some(first), _) => {
                let error = on.error(ErrorKind::Conflict, subnets::in_use(members.len()));
                Err(error.with_context("instance", first))
            }
            (None, Some(pod)) => {
                Err(on.error(ErrorKind::Conflict, "a pod is connected to it").with_context("pod", *pod))
            }
            (None, None) => Ok(()),
        }
    };
    in_use().await?;
    let removed = match on.send(Request::delete(format!("/networks/{}", network.name))).await {
        Ok(removed) => removed,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Effect::Unchanged),
        Err(error) if is_answer(&error) => {
            // A container joined this moment.
            in_use().await?;
            return Err(error);
        }
        Err(error) => return Err(error),
    };
    let removed: Vec<Removed> = items(on.client, on.operation, &removed)?;
    match removed.into_iter().find_map(Removed::refusal) {
        None => Ok(Effect::Changed),
        Some(why) if why.contains("default network") => Err(on.error(ErrorKind::PermissionDenied, why)),
        Some(why) => Err(on.error(ErrorKind::Unexpected, why)),
    }
}

async fn connect(on: On<'_>, call: Call<'_>, options: &ConnectOptions) -> Result<Effect> {
    let network = on.network().await?;
    let refused = options.address.and_then(|address| subnets::refused(&network.subnets(), address));
    if let Some((kind, message)) = refused {
        return Err(on.error(kind, message));
    }
    if !options.aliases.is_empty() && network.dns_enabled == Some(false) {
        return Err(on.unsupported("this network has no name server, so that no alias would be found"));
    }
    let container = call.inspect().await?;
    if let Some(effect) = already(on, call, &network, &container, options)? {
        return Ok(effect);
    }
    can_change(on, call, &container)?;
    if let Some(address) = options.address.filter(|_| container.state.is_alive()) {
        is_free(on, call, &network, address).await?;
    }
    let addresses: Vec<_> = options.address.into_iter().collect();
    let body = json!({ "container": container.id, "aliases": options.aliases, "static_ips": addresses });
    let request = Request::post(format!("/networks/{}/connect", network.name)).with_json(&body);
    match on.send(request).await {
        Ok(_) => Ok(Effect::Changed),
        Err(refusal) if is_answer(&refusal) => {
            // Podman writes the network down before it connects: what is left then breaks every inspection of the container.
            if container.state.is_alive() && call.inspect().await.is_err() {
                let _ = leave(on, &network, &container).await;
            }
            // Another client may have been faster.
            if let Some(container) = call.inspect_if_present().await?
                && let Some(effect) = already(on, call, &network, &container, options)?
            {
                return Ok(effect);
            }
            if refusal.message().contains("already allocated") {
                return Err(call.located(on.error(ErrorKind::Conflict, refusal.message())));
            }
            Err(call.located(refusal))
        }
        Err(error) => Err(call.located(error)),
    }
}

/// `Unchanged` if the container is connected as it is asked for, `None` if it is not connected.
fn already(
    on: On<'_>,
    call: Call<'_>,
    network: &Network,
    container: &Container,
    options: &ConnectOptions,
) -> Result<Option<Effect>> {
    let Some(endpoint) = container.endpoint(&network.name) else { return Ok(None) };
    let conflict = |message: String| Err(call.located(on.error(ErrorKind::Conflict, message)));
    let has = |alias: &String| endpoint.aliases.iter().flatten().any(|other| other == alias);
    if let Some(alias) = options.aliases.iter().find(|alias| !has(alias)) {
        return conflict(format!("it is connected, and not as '{alias}': disconnect it first"));
    }
    match options.address {
        Some(address) if !container.state.is_alive() => conflict(format!(
            "it is connected, and Podman does not show if at {address} while it does not run: disconnect it first"
        )),
        Some(address) if !endpoint.has(address) => {
            conflict(format!("it is connected, and not at {address}: disconnect it first"))
        }
        _ => Ok(Some(Effect::Unchanged)),
    }
}

/// Refuses a container whose networks cannot be changed (trap P12), or not now.
fn can_change(on: On<'_>, call: Call<'_>, container: &Container) -> Result<()> {
    let mode = container.host_config.network_mode.as_str();
    if mode != "bridge" {
        let why = format!("the container's network is '{}', and only one of 'bridge' joins networks", shown(mode));
        return Err(call.located(on.unsupported(why)));
    }
    if container.state.is_paused() || container.state.status == "stopping" {
        // Podman would write it down, do nothing, and fail at every inspection.
        let message = "Podman changes no network of a container that is paused or being stopped";
        let error = call.located(on.error(ErrorKind::Conflict, message));
        return Err(error.with_context("state", &container.state.status));
    }
    Ok(())
}

/// Refuses an address that another container of the network has: Podman finds it out when it is too late.
async fn is_free(on: On<'_>, call: Call<'_>, network: &Network, address: std::net::IpAddr) -> Result<()> {
    for member in network.members(&members(on.client, on.operation).await?) {
        let other = Call { id: member.as_str(), ..call };
        // One that is gone, or that holds a pod together, has no address that counts here.
        let Some(other) = other.inspect_if_present().await? else { continue };
        if other.endpoint(&network.name).is_some_and(|endpoint| endpoint.has(address)) {
            let error = on.error(ErrorKind::Conflict, format!("{address} is another container's"));
            return Err(call.located(error).with_context("other", member));
        }
    }
    Ok(())
}

async fn leave(on: On<'_>, network: &Network, container: &Container) -> Result<bytes::Bytes> {
    let body = json!({ "Container": container.id, "Force": false });
    on.send(Request::post(format!("/networks/{}/disconnect", network.name)).with_json(&body)).await
}

async fn disconnect(on: On<'_>, call: Call<'_>) -> Result<Effect> {
    let Some(network) = on.network_if_present().await? else { return Ok(Effect::Unchanged) };
    let connected = async || {
        let container = call.inspect_if_present().await?;
        Ok::<_, Error>(container.filter(|container| container.endpoint(&network.name).is_some()))
    };
    let Some(container) = connected().await? else { return Ok(Effect::Unchanged) };
    can_change(on, call, &container)?;
    match leave(on, &network, &container).await {
        Ok(_) => Ok(Effect::Changed),
        Err(error) if is_answer(&error) => match connected().await? {
            None => Ok(Effect::Unchanged),
            Some(_) => Err(call.located(error)),
        },
        Err(error) => Err(call.located(error)),
    }
}
