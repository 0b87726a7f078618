//! Resource usage.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream;
use runtide_core::{
    Error, ErrorKind, InstanceId, Result,
    manager::{StatsManager, Usage, UsageStream},
};

use super::Link;
use crate::{client::Client, fault::Call, runtime::MemoryRuntime};

#[async_trait]
impl StatsManager for Client {
    async fn usage(&self, id: &InstanceId) -> Result<Usage> {
        self.ask(Call::Stats, |state| state.usage(id)).await
    }

    async fn usage_stream(&self, id: &InstanceId, every: Duration) -> Result<UsageStream> {
        if every.is_zero() {
            return Err(Error::new(ErrorKind::InvalidInput, Call::Stats.operation(), "the period is zero"));
        }
        let life = |runtime: &MemoryRuntime| runtime.with(|state| state.life(id, Call::Stats));
        let (link, life) = Link::open(self, Call::Stats, life).await?;
        let (runtime, id) = (self.runtime.clone(), id.clone());
        Ok(UsageStream::new(stream::unfold((Some(link), Duration::ZERO), move |(link, after)| {
            let (runtime, id) = (runtime.clone(), id.clone());
            async move {
                let link = link?;
                match link.carry(runtime.next_usage(&id, life, after)).await {
                    Ok(usage) => Some((Ok(usage?), (Some(link), every))),
                    Err(error) => Some((Err(error), (None, every))),
                }
            }
        })))
    }
}
