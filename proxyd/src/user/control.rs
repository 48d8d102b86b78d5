//! The control methods about user groups.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sluice_control::{Code, Error, Methods};

use super::source::{self, Users};
use crate::daemon::Proxyd;

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct GroupName {
    /// The group's name.
    name: String,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Publish {
    /// The group's name.
    name: String,
    /// All dynamic users from now on, in the form of the configuration.
    users: Vec<Value>,
}

/// Adds them.
pub(crate) fn add_methods(proxyd: &Arc<Proxyd>, methods: &mut Methods) {
    let daemon = Arc::clone(proxyd);
    methods.add(
        "user-group.list-static-user",
        "names of the users that stand in the configuration",
        move |params: GroupName| {
            let group = daemon.user_group(&params.name);
            async move { Ok(json!(group.ok_or_else(|| unknown(&params.name))?.members().statics())) }
        },
    );
    let daemon = Arc::clone(proxyd);
    methods.add(
        "user-group.list-dynamic-user",
        "names of the users that were published or fetched",
        move |params: GroupName| {
            let group = daemon.user_group(&params.name);
            async move { Ok(json!(group.ok_or_else(|| unknown(&params.name))?.members().dynamic())) }
        },
    );
    let daemon = Arc::clone(proxyd);
    methods.add(
        "user-group.publish-user",
        "replaces the dynamic users, all of them or none",
        move |params: Publish| {
            let daemon = Arc::clone(&daemon);
            async move { publish(&daemon, params).await }
        },
    );
}

fn unknown(name: &str) -> Error {
    Error::new(Code::NotFound, format!("no user group is named `{name}`"))
}

async fn publish(daemon: &Arc<Proxyd>, params: Publish) -> Result<Value, Error> {
    let group = daemon.user_group(&params.name).ok_or_else(|| unknown(&params.name))?;
    let cache = daemon.user_cache(&params.name);
    let tasks = daemon.tasks().clone();
    let number = params.users.len();
    // Lists may be long, and writing waits for the disk. A caller that hangs up does not stop it half-way.
    let published = daemon.background().spawn_blocking(move || {
        let users = Users::from_json(&Value::from(params.users).to_string())?;
        source::publish(&group, &users, cache.as_deref(), &tasks)
    });
    published
        .await
        .map_err(|error| Error::failed(format_args!("publishing was ended: {error}")))?
        .map_err(|error| Error::failed(format_args!("{error}")))?;
    Ok(json!({ "message": format!("{number} users published") }))
}
