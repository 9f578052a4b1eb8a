// The certified provider on loopback, for the tests. Its settings come as JSON in the first line of stdin; each further
// line is a command, and is answered with one line. "add-key" signs with a new key from then on, "drop-keys" withdraws
// the older ones: the provider can't change its keys, so another one with the same storage takes its place behind the
// same socket, and no request is lost.
import { createServer } from 'node:http';
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { createInterface } from 'node:readline';

import Provider from 'oidc-provider';

const newKey = () => ({
  ...generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ format: 'jwk' }),
  kid: randomUUID(),
  alg: 'RS256',
  use: 'sig',
});

// Its notices for developers would stand between the answers.
for (const level of ['log', 'info', 'warn']) console[level] = console.error;
const answer = (line) => process.stdout.write(`${line}\n`);

let keys = [newKey()];
let settings;
let handler;

function renew() {
  const provider = new Provider(settings.issuer, {
    jwks: { keys },
    clients: settings.clients,
    extraClientMetadata: { properties: ['tenant_id'] },
    scopes: settings.scopes,
    clientDefaults: { grant_types: ['client_credentials'], response_types: [], redirect_uris: [] },
    ttl: { ClientCredentials: settings.lifetime },
    extraTokenClaims: (ctx, token) => ({ tenant_id: token.client?.tenant_id ?? ctx.oidc.client.tenant_id }),
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      introspection: { enabled: true, allowedPolicy: () => true },
      revocation: { enabled: true, allowedPolicy: () => true },
      dPoP: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => settings.resource,
        getResourceServerInfo: (ctx, resource) => ({
          scope: settings.scopes.join(' '),
          audience: resource.replace('/opaque', ''),
          accessTokenTTL: settings.lifetime,
          accessTokenFormat: resource.endsWith('/opaque') ? 'opaque' : 'jwt',
          jwt: { sign: { alg: 'RS256' } },
        }),
      },
    },
  });
  handler = provider.callback();
}

const commands = {
  'add-key': () => { keys = [newKey(), ...keys]; renew(); },
  'drop-keys': () => { keys = keys.slice(0, 1); renew(); },
};

for await (const line of createInterface({ input: process.stdin })) {
  if (settings === undefined) {
    settings = JSON.parse(line);
    renew();
    const server = createServer((request, response) => handler(request, response));
    server.listen(settings.port, '127.0.0.1', () => answer('listening'));
    continue;
  }
  commands[line]();
  answer(`done ${keys.length}`);
}
process.exit(0);
