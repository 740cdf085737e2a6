//! From a path and a method to what answers them.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Method, Request};

use super::act::{self, Action};
use super::answer::{Answer, problem, wrong_method};
use super::connection::Surface;
use super::context::Context;
use super::{apply, change, events, inspect, log, metrics, openapi, read};
use crate::control::api::{Problem, ProblemCode};
use crate::control::percent;

/// A resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Fleet,
    Guests,
    Guest(String),
    Target(String),
    Act(String, Action),
    Explanation(String),
    Inspection(String),
    Log(String),
    Events,
    Apply,
    Shutdown,
    HandOver,
    OpenApi,
    Metrics,
}

impl Route {
    /// Returns the resource of a path.
    pub(super) fn of(path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
        Some(match *parts.as_slice() {
            ["v1", "fleet"] => Self::Fleet,
            ["v1", "guests"] => Self::Guests,
            ["v1", "guests", name] => Self::Guest(percent::decode(name)?),
            ["v1", "guests", name, what] => {
                let name = percent::decode(name)?;
                match what {
                    "target" => Self::Target(name),
                    "explanation" => Self::Explanation(name),
                    "inspection" => Self::Inspection(name),
                    "log" => Self::Log(name),
                    what => Self::Act(name, Action::of(what)?),
                }
            }
            ["v1", "events"] => Self::Events,
            ["v1", "apply"] => Self::Apply,
            ["v1", "shutdown"] => Self::Shutdown,
            ["v1", "handover"] => Self::HandOver,
            ["v1", "openapi.json"] => Self::OpenApi,
            ["metrics"] => Self::Metrics,
            _ => return None,
        })
    }

    /// Returns the methods that the resource has.
    pub(super) const fn methods(&self) -> &'static [Method] {
        match self {
            Self::Fleet | Self::Guest(_) => &[Method::GET, Method::PATCH],
            Self::Target(_) => &[Method::PUT],
            Self::Act(..) | Self::Inspection(_) | Self::Apply | Self::Shutdown | Self::HandOver => &[Method::POST],
            Self::Guests | Self::Explanation(_) | Self::Log(_) | Self::Events | Self::OpenApi | Self::Metrics => {
                &[Method::GET]
            }
        }
    }
}

/// Answers a request.
pub(super) async fn answer(context: Arc<Context>, surface: Surface, request: Request<Incoming>) -> Answer {
    let (head, body) = request.into_parts();
    let route = Route::of(head.uri.path()).filter(|route| surface == Surface::All || *route == Route::Metrics);
    let Some(route) = route else {
        let detail = format!("there is nothing at {}; /v1/openapi.json describes what there is", head.uri.path());
        return problem(&Problem::new(ProblemCode::NotFound, detail));
    };
    if !route.methods().contains(&head.method) {
        return wrong_method(&head.method, route.methods());
    }
    let is_read = head.method == Method::GET;
    let answered = match route {
        Route::Fleet if is_read => read::fleet(&context, &head).await,
        Route::Fleet => change::fleet(&context, &head, body).await,
        Route::Guests => read::guests(&context, &head).await,
        Route::Guest(name) if is_read => read::guest(&context, &head, &name).await,
        Route::Guest(name) => change::guest(&context, &head, &name, body).await,
        Route::Target(name) => change::target(&context, &head, name, body).await,
        Route::Act(name, action) => act::act(&context, &head, name, action).await,
        Route::Explanation(name) => read::explanation(&context, &head, &name).await,
        Route::Inspection(name) => inspect::inspection(&context, &head, &name).await,
        Route::Log(name) => log::log(context, &head, &name).await,
        Route::Events => events::events(context, &head).await,
        Route::Apply => apply::apply(&context, &head, body).await,
        Route::Shutdown => change::shutdown(&context, &head).await,
        Route::HandOver => change::hand_over(&context, &head).await,
        Route::OpenApi => openapi::openapi(&head),
        Route::Metrics => metrics::metrics(&context, &head).await,
    };
    answered.unwrap_or_else(|error| problem(&error))
}
