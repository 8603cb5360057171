// Starts Swagger UI, keeps the access token of a login, and repairs what hinders screen readers.
"use strict";

const dark = matchMedia("(prefers-color-scheme: dark)");
const applyTheme = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
applyTheme();
dark.addEventListener("change", applyTheme);

// The token is in this page's memory only. A request that logs in needs none, and an expired one would be refused.
function beforeRequest(request) {
  if (request.url.endsWith("/auth/login")) delete request.headers.Authorization;
  return request;
}

function afterResponse(response) {
  const token = response.obj?.data?.accessToken;
  if (token) ui.preauthorizeApiKey("bearer", token);
  const challenge = String(response.headers["www-authenticate"]); // a list, if it has commas
  if (challenge.includes("invalid_token")) ui.authActions.logout(["bearer"]);
  return response;
}

// Wrappers of Swagger UI's components.
const replaced = (render) => (Original, { React }) => (props) => render(React.createElement, props, Original);
const components = {
  CloseIcon: replaced((element, props, Original) =>
    element("span", { role: "img", "aria-label": "Close" }, element(Original, props))),
  DeepLink: replaced((element, { text }) => element("span", null, text)), // a link inside a button
  InfoContainer: replaced((element, props, Original) =>
    element("details", null, element("summary", null, "What all operations have in common"), element(Original, props))),
  ServersContainer: () => () => null, // there is one server
  authorizeOperationBtn: () => () => null, // it shows public operations as locked
  TextArea: replaced((element, props, Original) => element(Original, { "aria-label": "Request body", ...props })),
};

const ui = SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#viewer",
  validatorUrl: null, // else the page would send its address to validator.swagger.io
  deepLinking: true,
  tryItOutEnabled: true,
  defaultModelsExpandDepth: 0,
  syntaxHighlight: { activated: false }, // 800 elements in an open operation, not 1,400
  requestInterceptor: beforeRequest,
  responseInterceptor: afterResponse,
  plugins: [{ wrapComponents: components }],
});
addEventListener("hashchange", () => ui.layoutActions.parseDeepLinkHash(location.hash));
