//! The `weft` binary: what a person types, what it composes, what it prints. Errors are one sentence, exit code 1; usage errors
//! are clap's, exit code 2.

#![forbid(unsafe_code)]

mod args;
mod attach;
mod capture;
mod compose;
mod doctor;
mod join;
mod leave;
mod mesh;
mod mesh_name;
mod network;
mod show;
mod table;
mod token;
mod up;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use weft_client::Admin;

use crate::args::{Args, Command, HostCommand, MeshCommand, MeshKeyCommand, NetworkCommand, TokenCommand};

/// What a command ends with when nothing went wrong in doing it: `weft status` says 1 of a mesh that is not well.
type Done = anyhow::Result<ExitCode>;

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return failed(&anyhow::anyhow!("the runtime cannot start: {e}")),
    };
    let done = runtime.block_on(run(args));
    // What is blocked on a disk or a name is not waited for.
    runtime.shutdown_background();
    done.unwrap_or_else(|e| failed(&e))
}

async fn run(args: Args) -> Done {
    let Args { state, command } = args;
    let state = weft_agent::state::StateDir::new(state);
    let admin = Admin::at(weft_client::SOCKET);
    match command {
        Command::Init(args) => compose::init(&state, &admin, args).await,
        Command::Join(args) => join::join(&state, &admin, args).await,
        Command::Up(args) => up::up(state, &admin, args).await,
        Command::Leave { force } => leave::leave(&state, &admin, force).await,
        Command::Status(format) => show::status(&admin, format.json).await,
        Command::Doctor(args) => doctor::doctor(&state, &admin, args).await,
        Command::Hosts(format) | Command::Host(HostCommand::Ls(format)) => {
            show::hosts(&admin, format.json).await
        }
        Command::Host(HostCommand::Rm { name }) => {
            admin.remove_host(&name).await?;
            say(&name)
        }
        Command::Links(format) => show::links(&admin, format.json).await,
        Command::Ps(format) => show::endpoints(&admin, format.json).await,
        Command::Network(NetworkCommand::Create(args)) => network::create(&admin, args).await,
        Command::Network(NetworkCommand::Ls(format)) => network::list(&admin, format.json).await,
        Command::Network(NetworkCommand::Inspect { name, format }) => {
            network::inspect(&admin, &name, format.json).await
        }
        Command::Network(NetworkCommand::Attach { name }) => network::attach(&admin, &name).await,
        Command::Network(NetworkCommand::Detach { name }) => network::detach(&admin, &name).await,
        Command::Network(NetworkCommand::Rm { names }) => network::remove(&admin, &names).await,
        Command::Attach(args) => attach::attach(&admin, args).await,
        Command::Detach(args) => attach::detach(&admin, args).await,
        Command::Expose(args) => attach::expose(&admin, args).await,
        Command::Hide { network } => attach::hide(&admin, network).await,
        Command::Capture(args) => capture::run(&admin, args).await,
        Command::Trace { to, format } => show::trace(&admin, &to, format.json).await,
        Command::Token(TokenCommand::New(args)) => token::new(&admin, args).await,
        Command::Token(TokenCommand::Ls(format)) => token::list(&admin, format.json).await,
        Command::Token(TokenCommand::Rm { ids }) => token::remove(&admin, &ids).await,
        Command::Mesh(MeshCommand::Rekey { all }) => mesh::rekey(&admin, all).await,
        Command::Mesh(MeshCommand::Key(MeshKeyCommand::Export(args))) => {
            mesh::export(&state, &admin, &args).await
        }
        Command::Mesh(MeshCommand::Key(MeshKeyCommand::Import(args))) => mesh::import(&state, &args),
        Command::Mesh(MeshCommand::Key(MeshKeyCommand::Rotate(format))) => {
            mesh::rotate(&admin, format.json).await
        }
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Args::command(), "weft", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Prints what was done: the name of what it was done to, as docker does.
fn say(name: &str) -> Done {
    println!("{name}");
    Ok(ExitCode::SUCCESS)
}

fn failed(error: &anyhow::Error) -> ExitCode {
    // One sentence on one line, whatever a peer or the kernel put into it.
    let sentence = format!("{error:#}").split_whitespace().collect::<Vec<_>>().join(" ");
    eprintln!("weft: {sentence}");
    ExitCode::FAILURE
}
