//! The capability managers of Docker.

use crate::client::Client;

macro_rules! placeholders {
    ($($name:ident)*) => { $(
        /// A manager over the client.
        #[derive(Debug)]
        pub(crate) struct $name(#[expect(dead_code)] Client);
        impl $name {
            pub(crate) fn new(client: Client) -> Self {
                Self(client)
            }
        }
    )* };
}
placeholders!(Lifecycle Provision Logs);
