//! SOCKS5 (RFC 1928) with user names and passwords (RFC 1929).

mod credentials;
mod greeting;
mod reply;
mod request;
#[cfg(test)]
mod tests;

pub use credentials::{
    Credentials, CredentialsError, CredentialsTooLong, MAX_CREDENTIALS, STATUS, StatusError, parse_credentials,
    parse_status, put_credentials, put_status,
};
pub use greeting::{
    CHOICE, ChoiceError, Greeting, GreetingError, MAX_GREETING, Method, parse_choice, parse_greeting, put_choice,
    put_greeting,
};
pub use reply::{MAX_REPLY, Reply, ReplyCode, ReplyError, parse_reply};
pub use request::{Command, DomainOfClient, MAX_REQUEST, Request, RequestError, UdpClient, parse_request, put_request};
