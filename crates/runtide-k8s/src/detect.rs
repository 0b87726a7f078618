//! [`detect`]: the cluster that this user's kubectl would use, and its answer.

use std::{fmt, time::Duration};

use runtide_core::{Error, Failure, Result};

use crate::{
    access::without_credentials, client::Client, config::Config, environment::Environment, kubeconfig::Selection,
};

/// The result of [`detect`](crate::detect()), which installs, starts and changes nothing.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Detection {
    /// The context that would be used, `in-cluster` in a pod; `None`: nothing names a cluster.
    pub context: Option<String>,
    /// Address of the server; `None`: nothing names a cluster.
    pub server: Option<String>,
    /// The server's version, or the failure.
    pub outcome: Result<String, Failure>,
    /// The configuration, if a server answered.
    pub chosen: Option<Config>,
}

impl fmt::Display for Detection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(context), Some(server)) = (&self.context, &self.server) {
            write!(f, "{server} (context {context}): ")?;
        }
        match &self.outcome {
            Ok(version) => write!(f, "kubernetes {version}"),
            Err(failure) => f.write_str(&failure.message),
        }
    }
}

impl Detection {
    /// The configuration, if a server answered.
    ///
    /// # Errors
    /// The failure.
    pub fn into_config(self) -> Result<Config> {
        match (self.outcome, self.chosen) {
            (Ok(_), Some(config)) => Ok(config),
            (Err(failure), _) => Err(Error::from(failure)),
            (Ok(_), None) => Err(Error::new(runtide_core::ErrorKind::Unexpected, "k8s.detect", "no configuration")),
        }
    }
}

/// Reads which cluster [`Config::from_env`] would use, and asks its server for its version within `deadline`, a credential plugin
/// included.
///
/// ```no_run
/// # async fn example() -> runtide_core::Result<()> {
/// use std::time::Duration;
///
/// let found = runtide_k8s::detect(Duration::from_secs(2)).await;
/// println!("{found}"); // https://10.0.0.1:6443 (context prod): kubernetes v1.33.1
/// let backend = runtide_k8s::KubeBackend::new(found.into_config()?)?;
/// # Ok(()) }
/// ```
///
/// # Cancel safety
/// A dropped future leaves no state behind.
pub async fn detect(deadline: Duration) -> Detection {
    detect_in(&Environment::of_process(), deadline).await
}

pub(crate) async fn detect_in(environment: &Environment, deadline: Duration) -> Detection {
    const OPERATION: &str = "k8s.detect";
    let config = match environment.config(&Selection::default()) {
        Ok(config) => config,
        Err(error) => {
            return Detection { context: None, server: None, outcome: Err(Failure::from(&error)), chosen: None };
        }
    };
    let (context, server) = (config.context.clone(), Some(without_credentials(&config.access.server)));
    let asked = match Client::new(config.clone()) {
        Ok(client) => {
            let site_client = client.clone();
            let asking = async { client.identify(OPERATION).await };
            site_client.site(OPERATION).within(deadline, asking).await
        }
        Err(error) => Err(error),
    };
    let (outcome, chosen) = match asked {
        Ok(server) => (Ok(server.version.clone().unwrap_or_default()), Some(config)),
        Err(error) => (Err(Failure::from(&error)), None),
    };
    Detection { context, server, outcome, chosen }
}
