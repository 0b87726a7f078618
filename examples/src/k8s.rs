//! The choice of a Kubernetes cluster: the one that this user's kubectl would use.

use std::{sync::Arc, time::Duration};

use runtide_core::{Failure, RuntimeBackend};
use runtide_k8s::{Detection, KubeBackend, detect};

use crate::{Stop, Target, note};

/// Deadline of the server's answer, a credential plugin included.
const DEADLINE: Duration = Duration::from_secs(10);

/// Asks the cluster that is named.
async fn asked(target: &Target) -> Detection {
    let found = detect(DEADLINE).await;
    if target.verbose {
        note(&found);
    }
    found
}

/// The named cluster, which must answer.
pub(crate) async fn named(target: &Target) -> Result<Arc<dyn RuntimeBackend>, Stop> {
    let found = asked(target).await;
    let refused = |why: &Failure| {
        let server = found.server.as_ref().map(|server| format!("{server}: ")).unwrap_or_default();
        Stop::refused(format_args!("{server}{}; see KUBECONFIG, and `kubectl config get-contexts`", why.message))
    };
    match (&found.outcome, &found.chosen) {
        (Ok(_), Some(config)) => Ok(Arc::new(KubeBackend::new(config.clone())?)),
        (Err(why), _) => Err(refused(why)),
        (Ok(_), None) => Err(Stop::refused("no cluster is named: see KUBECONFIG")),
    }
}

/// The named cluster, if there is one and it answers.
pub(crate) async fn any(target: &Target) -> Result<Option<Arc<dyn RuntimeBackend>>, Stop> {
    match asked(target).await.chosen {
        Some(config) => Ok(Some(Arc::new(KubeBackend::new(config)?))),
        None => Ok(None),
    }
}
