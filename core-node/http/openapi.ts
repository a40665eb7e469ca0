// The OpenAPI document's own words: title, security, tags, and the redirect, which is no route of the API's
// router.
//
// All else comes from the routes' schemas, so the document says what is checked and nothing else.

import type { FastifyDynamicSwaggerOptions } from '@fastify/swagger'
import { PROBLEM_TYPE } from './problem-reply.ts'

const redirectReplies = {
  302: {
    description: 'The best member, path and query kept',
    headers: {
      Location: {
        schema: { type: 'string' as const },
        description: 'The member’s URL, path and query joined to it',
      },
      Link: {
        schema: { type: 'string' as const },
        description: 'RFC 6249: the next best, as `<URL>; rel=duplicate; pri=N`',
      },
      'X-Nearcast-Member': { schema: { type: 'string' as const }, description: 'The member’s name' },
      'X-Nearcast-Basis': { schema: { type: 'string' as const }, description: 'What the choice stood on' },
    },
  },
  ...Object.fromEntries(
    [
      ['400', 'The path leaves the service, or holds CR, LF or other control characters'],
      ['404', 'There is no such service'],
      ['405', 'Neither GET nor HEAD'],
      ['503', 'No member with a URL is live; Retry-After says when to come back'],
    ].map(([status, description]) => [
      status,
      { description, content: { [PROBLEM_TYPE.split(';')[0]!]: {} } },
    ]),
  ),
}

const redirectParameters = [
  {
    name: 'service',
    in: 'path',
    required: true,
    schema: { type: 'string' },
    description: 'A service’s name or alias',
  },
  {
    name: 'path',
    in: 'path',
    required: true,
    schema: { type: 'string' },
    description: 'Any path, slashes included; it and the query are joined to the member’s URL',
  },
]

/** What @fastify/swagger is given. `version` is the program's. */
export function openapiOptions(version: string): FastifyDynamicSwaggerOptions {
  return {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'Nearcast',
        version,
        description:
          'Sends every client to the nearest live member of a service. Errors are application/problem+json (RFC 9457); unknown fields are refused in requests and may appear in replies.',
      },
      tags: [
        { name: 'answers', description: 'What clients and overlay nodes ask' },
        { name: 'agents', description: 'What agents tell; open to clients of any make' },
        { name: 'operators', description: 'Services, members, hosts, tokens, localities' },
        { name: 'inspection', description: 'For machines that look after a core' },
      ],
      components: {
        securitySchemes: {
          token: { type: 'http', scheme: 'bearer', description: 'An admin or service token' },
          credential: {
            type: 'http',
            scheme: 'bearer',
            description: 'A host’s own credential, from its join',
          },
        },
      },
      paths: {
        '/r/{service}/{path}': {
          get: {
            operationId: 'redirect',
            tags: ['answers'],
            summary: 'A redirect to the best member; the same for any path under Host: SERVICE.ZONE',
            security: [{}],
            parameters: redirectParameters,
            responses: redirectReplies,
          },
        },
      },
    },
    // Schemas here are of JSON Schema 2020-12, which OpenAPI 3.1 takes as it is.
    convertConstToEnum: false,
    hideUntagged: true,
  } as FastifyDynamicSwaggerOptions
}
