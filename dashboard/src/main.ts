/** Where the page begins: take a key out of the address before anything else can see it, then show who is signed in what. */

import { mount } from "svelte";
import App from "./App.svelte";
import { keyFromFragment } from "./lib/router";
import { session } from "./state/session.svelte";
import "uplot/dist/uPlot.min.css";
import "./app.css";

const key = keyFromFragment(window.location.hash);
if (key !== null) history.replaceState(null, "", window.location.pathname + window.location.search);

void session.begin(key);

mount(App, { target: document.getElementById("app") as HTMLElement });
