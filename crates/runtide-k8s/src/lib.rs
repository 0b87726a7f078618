#![doc = include_str!("../README.md")]

mod access;
mod backend;
mod client;
mod config;
mod credentials;
mod detect;
mod environment;
mod handover;
mod index;
mod inspector;
mod kubeconfig;
mod lines;
mod list;
mod manager;
mod normalize;
mod proxy;
mod runs;
mod source;
mod status;
mod store;
mod subscription;
mod token;
mod transport;
mod wire;
mod workloads;

pub use self::{
    access::{Access, ExecPlugin, Identity, Impersonation, Pem, Secret, User},
    backend::KubeBackend,
    config::{Config, Granularity, Namespaces},
    detect::{Detection, detect},
    kubeconfig::Selection,
    manager::PortForward,
    store::{Kinds, KubeForm, KubeStore, KubeStoreOptions, Objects, Propagation},
    workloads::{Obstacle, Rollout, ScaleOptions, Workload, WorkloadKind, WorkloadListing, WorkloadRef, Workloads},
};
