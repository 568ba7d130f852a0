"""Logs a person in, changes one setting, and prints every change of that person's data.

Run it as `python local_api.py SOCKET USER`. The modules `local_pb2` and `local_pb2_grpc` are made
from proto/proto/local.proto; README.md, "For the firmware integrator", shows the two commands.
"""
import sys

import grpc
import local_pb2 as api
from local_pb2_grpc import LocalStub

socket, user = sys.argv[1:]
scope = f"user/{user}"

# By default this library sends the socket's path as the authority, which is no valid one.
options = [("grpc.default_authority", "localhost")]

# One channel for the life of the program: a new connection for each call is slow.
with grpc.insecure_channel(f"unix:{socket}", options=options) as channel:
    local = LocalStub(channel)

    events = local.Watch(api.WatchRequest(scopes=[scope]))
    next(events)  # `started`: what changes from here on is seen

    login = local.Login(api.LoginRequest(user=user, wait_millis=300), timeout=3)
    print("current," if login.freshness.current else "not current,", len(login.items), "items")

    key = api.ItemKey(scope=scope, kind="ui.language", id="language")
    value = api.Field(name="value", value=api.Value(text="ja"))
    edit = api.Edit(patch=api.Patch(key=key, set=[value]))
    written = local.Write(api.WriteRequest(edits=[edit], actor=user), timeout=3)
    print("operation", written.operation if written.HasField("operation") else "none: no group, or no change")

    for event in events:
        name = event.WhichOneof("event")
        if name == "changed":
            print(name, event.changed.key.kind, api.ItemState.Name(event.changed.state))
        else:
            print(name)
