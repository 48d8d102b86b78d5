//! Who a client is: the users of a group at one server (users.md §10.1).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use sluice_auth::{CameBy, EgressUpstream, MAX_PASSWORD, MAX_USERNAME, ParamsError, UsernameParams};
use sluice_config::value::TcpMiscOpts;
use sluice_io::Stream;
use sluice_telemetry::debug;
use thiserror::Error;

use super::group::UserGroup;
use super::kind::ClientProtocol;
use super::member::User;
use super::passwords::{Busy, Passwords};
use super::permit::Login;
use super::stats::Forbidden;
use crate::config::tcp_options;
use crate::server::set_options;
use crate::stats::ServerStats;

/// A server's way to its users. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Gate {
    group: Arc<UserGroup>,
    server: Arc<ServerStats>,
    protocol: ClientProtocol,
    keys: Arc<GateKeys>,
}

/// What a server's configuration says of its users.
#[derive(Debug, Clone, Default)]
pub(crate) struct GateKeys {
    /// What stands behind the names.
    pub(crate) username_params: Option<UsernameParams>,
    /// Options of client sockets.
    pub(crate) tcp_misc_opts: TcpMiscOpts,
}

/// Why a client is nobody. What it is told depends on the reason with [`Self::Blocked`] and [`Self::Params`] only.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum LoginError {
    /// The answer has to wait.
    #[error("the user is blocked")]
    Blocked { delay: Duration },
    #[error("too many passwords to check")]
    Busy,
    #[error("the user may not come from this address")]
    ClientDenied,
    #[error("the user has expired")]
    Expired,
    #[error("the credentials cannot be read")]
    Malformed,
    #[error("no credentials")]
    NoCredentials,
    /// The client is known, and asks for what cannot be.
    #[error(transparent)]
    Params(#[from] ParamsError),
    #[error("no such user")]
    UnknownUser,
    #[error("wrong password")]
    WrongPassword,
}

impl Gate {
    pub(crate) fn new(
        group: &Arc<UserGroup>,
        server: &Arc<ServerStats>,
        protocol: ClientProtocol,
        keys: GateKeys,
    ) -> Self {
        Self {
            group: Arc::clone(group),
            server: Arc::clone(server),
            protocol,
            keys: Arc::new(keys),
        }
    }

    /// A number that changes with the group's members: what was found out under another one has to be found out again.
    pub(crate) fn version(&self) -> u64 {
        self.group.version()
    }

    /// Whether a client from `ip` may do without a name.
    pub(crate) fn admits_anonymous(&self, ip: IpAddr) -> bool {
        self.group.members().anonymous().is_some_and(|user| user.admits(ip))
    }

    /// Lets a client in that gives no name.
    ///
    /// # Errors
    /// [`LoginError`].
    pub(crate) fn anonymous(&self, client: IpAddr) -> Result<Login, LoginError> {
        let members = self.group.members();
        let login = match members.anonymous().filter(|user| user.admits(client)) {
            None => Err(LoginError::NoCredentials),
            Some(user) => self.admit(user, None),
        };
        self.note(login, client)
    }

    /// Lets a client in that says who it is. Slow checks run off the worker.
    ///
    /// # Errors
    /// [`LoginError`].
    pub(crate) async fn login(
        &self,
        passwords: &Passwords,
        name: &str,
        password: &str,
        client: IpAddr,
    ) -> Result<Login, LoginError> {
        if name.len() > MAX_USERNAME || password.len() > MAX_PASSWORD {
            return self.malformed(client);
        }
        let given = name;
        let params = self.keys.username_params.as_ref();
        let name = params.map_or(given, |params| params.user(given));
        let members = self.group.members();
        let login = match members.find(name) {
            Some(user) => match self.authenticate(passwords, user, password, client).await {
                Ok(()) => self.admit(user, Some(name)),
                Err(error) => Err(error),
            },
            None => match members.anonymous().filter(|user| user.admits(client)) {
                Some(user) => self.admit(user, Some(name)),
                None => Err(LoginError::UnknownUser),
            },
        };
        // Strangers do not hear what is wrong with parameters.
        let login = login.and_then(|login| Ok(login.with_egress(self.egress(given)?)));
        self.note(login, client)
    }

    /// The next proxy that a login asks for.
    fn egress(&self, login: &str) -> Result<Option<EgressUpstream>, ParamsError> {
        let came_by = match self.protocol {
            ClientProtocol::Http => CameBy::Http,
            ClientProtocol::Socks => CameBy::Socks5,
        };
        let params = self.keys.username_params.as_ref();
        params.map_or(Ok(None), |params| params.egress(login, came_by))
    }

    /// The address first: a check of a password costs more.
    async fn authenticate(
        &self,
        passwords: &Passwords,
        user: &Arc<User>,
        password: &str,
        client: IpAddr,
    ) -> Result<(), LoginError> {
        let numbers = || user.state.numbers.at_server(&self.server);
        if !user.admits(client) {
            numbers().forbid(Forbidden::SrcBlocked);
            return Err(LoginError::ClientDenied);
        }
        match passwords.check(user, password).await {
            Ok(true) => Ok(()),
            Ok(false) => {
                numbers().forbid(Forbidden::AuthFailed);
                Err(LoginError::WrongPassword)
            }
            Err(Busy) => Err(LoginError::Busy),
        }
    }

    fn admit(&self, user: &Arc<User>, name: Option<&str>) -> Result<Login, LoginError> {
        let numbers = user.state.numbers.at_server(&self.server);
        Login::check(user, &numbers)?;
        Ok(Login::new(user, name, numbers, &self.server, self.protocol))
    }

    /// Asks again for a request that comes after others with the same credentials, under the same
    /// [`version`](Self::version).
    ///
    /// # Errors
    /// [`LoginError`]: the user's time is over, or it has been blocked.
    pub(crate) fn recheck(&self, login: Login, client: IpAddr) -> Result<Login, LoginError> {
        self.note(login.recheck(), client)
    }

    /// Refuses credentials that cannot be read.
    ///
    /// # Errors
    /// Always.
    pub(crate) fn malformed(&self, client: IpAddr) -> Result<Login, LoginError> {
        self.note(Err(LoginError::Malformed), client)
    }

    /// Counts a client that cannot even say who it is.
    pub(crate) fn refuse_stranger(&self, client: IpAddr) {
        // That nobody came in is all there is to know.
        let _ = self.note(Err(LoginError::NoCredentials), client);
    }

    /// Sets the options that a user wants on the socket of its client.
    pub(crate) fn set_client_options(&self, login: &Login, stream: &Stream) {
        let Some(own) = &login.user.config.tcp_client_misc_opts else {
            return;
        };
        let options = self.keys.tcp_misc_opts.clone().with(own.clone());
        set_options(&self.server.name, stream, &tcp_options(&options, None));
    }

    fn note(&self, login: Result<Login, LoginError>, client: IpAddr) -> Result<Login, LoginError> {
        if let Err(error) = &login {
            let counters = self.server.mine();
            match error {
                LoginError::Blocked { .. } => counters.user_blocked.add(1),
                LoginError::Params(_) => counters.dest_denied.add(1),
                _ => counters.auth_failed.add(1),
            }
            debug!("login refused"; "server" => &*self.server.name, "user_group" => &*self.group.name,
                "client" => %client, "error" => %error);
        }
        login
    }
}
